"""Values of one setting that were tried for one run: a table of the trials, and the best; loads no model."""

from glue_sparse.reports.sheet import Sheet


def table(sheet: Sheet, setting: str) -> tuple[list[str], list[list[str]]]:
    """Header and lines, a value each: the mean over seeds, the best in bold, and the seconds of one trial."""
    grid, chosen, lines = sheet.grid, best(sheet), []
    metric = next((result.main_metric for result in sheet.found), "score")
    for (row, _), place in sheet.places.items():
        score = place.text() if place.found or row not in _diverged(sheet) else "diverged"
        seconds = f"{place.found[0].seconds['train']:.0f}" if place.found else "-"
        lines.append([f"{grid.rows[row][setting]:g}", f"**{score}**" if row == chosen else score, seconds])
    return [setting, metric, "seconds"], lines


def best(sheet: Sheet) -> str | None:
    """The row with the best mean, of equals the first; none while a trial is missing, or where all diverged.

    A value of which any seed diverged is never the best.
    """
    diverged = _diverged(sheet)
    places = {row: place for (row, _), place in sheet.places.items() if row not in diverged}
    if not places or not all(place.is_complete for place in places.values()):
        return None
    return max(places, key=lambda row: places[row].scale.worth(places[row].mean))


def captions(sheet: Sheet, setting: str) -> list[str]:
    """What the best was chosen by, and what to doubt, a line each; there is a best one."""
    rows, chosen, count = [*sheet.grid.rows], best(sheet), len(sheet.grid.seeds)
    chance = f"mean over {count} seeds" if count > 1 else "one seed, with which small differences say nothing"
    lines = [f"{', '.join(sheet.titles.values())}; {chance}"]
    for end, word, further in ((rows[0], "smallest", "smaller"), (rows[-1], "largest", "larger")):
        if chosen == end and len(rows) > 1:
            lines.append(f"the best {setting} is the {word} that was tried: a {further} one may be better still")
    return lines


def _diverged(sheet: Sheet) -> set[str]:
    return {cell.row for cell in sheet.grid.cells if sheet.result(cell) is None and cell.has_diverged}
