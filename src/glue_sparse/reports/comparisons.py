"""The rows of a table against one of them, place by place and paired by seed; loads no model."""

from typing import Any

from glue_sparse.reports.sheet import Sheet


def table(sheet: Sheet, plus_minus: str = "±") -> tuple[list[str], list[list[str]]]:
    """Header and lines, one per row but the one to compare with; no lines unless that is asked for."""
    grid, found = sheet.grid, sheet.comparisons
    if (against := sheet.statistics.against) is None:
        return [], []
    lines = [
        [row, *(found[row, column].text(sheet.places[row, column].scale, plus_minus) if (row, column) in found else "-"
                for column in grid.columns)]
        for row in grid.rows if row != against
    ]  # fmt: skip
    return ["", *sheet.titles_with_metric.values()], lines


def heading(sheet: Sheet) -> str:
    """What stands above the table of differences."""
    return f"Each row minus {sheet.statistics.against}, paired by seed:"


def captions(sheet: Sheet) -> list[str]:
    """What a reader must know of the differences."""
    asked = sheet.statistics
    if asked.against is None:
        return []
    tests = sum(one.p is not None for one in sheet.comparisons.values())
    better = {scale: f"{'below' if scale.smaller_is_better else 'above'} 0 is better" for scale in sheet.scales}
    signs = dict.fromkeys(better.values())
    if len(signs) > 1:  # a unit says of itself when smaller is better
        signs = [f"{sign} in {scale.unit.partition(',')[0]}" for scale, sign in better.items()]
    return [
        f"Differences from {asked.against}: mean over the seeds that both have (their number) ± half of its "
        f"{asked.percent:g}% t interval, and p of the two-sided paired t test; {', '.join(signs)}.",
        f"p is corrected by Holm's method over the tests of this table ({tests}), intervals are not. `no test`: fewer "
        "than two seeds in common; `all equal`: every seed differs by the same, so there is no spread to test against.",
    ]


def in_csv(sheet: Sheet) -> tuple[list[str], dict[tuple[str, str], list[Any]]]:
    """Further columns of a table as CSV, and (row, column) -> their cells."""
    asked, found = sheet.statistics, sheet.comparisons
    header, cells = list[str](), {place: list[Any]() for place in sheet.grid.places}
    if asked.interval is not None:
        header += ["interval", "half_width"]
        for place, line in cells.items():
            line += [asked.interval, sheet.places[place].half_width(asked.interval)]
    if asked.against is not None:
        header += ["against", "difference", "difference_half_width", "pairs", "p", "p_holm"]
        for place, line in cells.items():
            one = found.get(place)
            line += [asked.against, one.difference, one.half_width, one.pairs, one.p, one.p_holm] if one else [None] * 6
    return header, cells
