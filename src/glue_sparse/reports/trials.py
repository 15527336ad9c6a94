"""What trials on held-out data have chosen, for the tables of a grid."""

from collections.abc import Sequence

from glue_sparse.experiments.cells import Grid, Tuned
from glue_sparse.experiments.told import told
from glue_sparse.records.results import Result
from glue_sparse.records.scales import scales_of


def table(grid: Grid) -> tuple[list[str], list[list[str]]]:
    """Header and lines: the score of every trial in `unit`, the chosen one in bold; no lines without tuning."""
    if (tuned := grid.tuned) is None:
        return [], []
    lines = []
    for place in grid.places:
        scores, best = tuned.scores[place], None if place in tuned.waiting else tuned.used[place]
        scale = scales_of(_trials(tuned, place[1]))[0]
        texts = [
            scale.text(scale.shown(scores[value])) if value in scores
            else "diverged" if value in tuned.diverged[place] else "-"
            for value in tuned.values
        ]  # fmt: skip
        marked = [f"**{text}**" if value == best else text for value, text in zip(tuned.values, texts, strict=True)]
        lines.append([*place, *marked])
    return ["", "column", *(f"{tuned.setting} {value:g}" for value in tuned.values)], lines


def unit(grid: Grid) -> str:
    """What the scores of the trials are in."""
    found = [result for column in grid.columns for result in _trials(grid.tuned, column)] if grid.tuned else []
    return " or ".join(scale.unit for scale in scales_of(found))


def _trials(tuned: Tuned, column: str) -> list[Result]:
    """The trials of a column that are through."""
    return [result for (_, at), runs in tuned.found.items() if at == column for result in runs.values()]


def captions(grid: Grid) -> list[str]:
    """How the setting was chosen, and where it was not."""
    if (tuned := grid.tuned) is None:
        return []
    values, lines = ", ".join(f"{value:g}" for value in tuned.values), []
    if len(tuned.waiting) < len(grid.places):
        titles = dict.fromkeys(result.title for runs in tuned.found.values() for result in runs.values())
        lines.append(
            f"{tuned.setting} chosen on held-out data: for each row and column the one of {values} whose trial scored "
            f"best on {tuned.hold_out:,} training examples that it did not train on (first of equals; seed "
            f"{tuned.seed}; {', '.join(titles)}). The runs of the table hold none out; the column shows what they were "
            "given."
        )
    if tuned.waiting:
        names = ", ".join("/".join(place) for place in grid.places if place in tuned.waiting)
        lines.append(
            f"Not chosen here, since trials are missing: {names}. (A run with `tune_values` is shown with the same.)"
        )
    return lines


def told_by(runs: Sequence[Sequence[Result]], setting: str) -> str:
    """What the runs of several places were given for a setting; once where all have the same."""
    texts = [", ".join(dict.fromkeys(f"{told(result, setting):g}" for result in found)) or "-" for found in runs]
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts)
