"""Score over sparsity, from the result files of a grid: curves, drop points and what to run next; loads no model."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass

from glue_sparse import drop_point
from glue_sparse.cells import Grid
from glue_sparse.drop_point import Curve, DropPoint
from glue_sparse.results import Result
from glue_sparse.tables import markdown

SETTING = "sparsity"


@dataclass(frozen=True)
class Line:
    """What one method (a row with a sweep) found on one task (a column).

    Attributes:
        model_share: share of the model that the matrices are of which sparsity speaks.
    """

    column: str
    title: str
    metric: str
    method: str
    curve: Curve
    model_share: float


def lines(grid: Grid) -> list[Line]:
    """One per task and sweep that has the dense runs and one other point at least.

    Raises:
        ValueError: the grid has no row of sparsity 0, or no sweep over sparsity.
    """
    dense = dense_row(grid)
    families = dict.fromkeys(family for row, family in grid.family.items() if _sweeps_sparsity(grid, row))
    if not families:
        raise ValueError(f"{grid.name} has no sweep over sparsity: a row needs sweep: {{sparsity: [0.1, 0.2]}}")
    found = []
    for column in grid.columns:
        start = _by_seed(grid, dense, column)
        for family in families:
            rows = [row for row in grid.rows if grid.family.get(row) == family]
            later = {grid.rows[row][SETTING]: _by_seed(grid, row, column) for row in rows}
            try:
                curve = Curve.of({0.0: _scores(start), **{value: _scores(runs) for value, runs in later.items()}})
            except ValueError:  # not yet run that far
                continue
            run = next(iter(start.values()))
            share = run.cost["masked_entries"] / run.cost["num_entries"]
            found.append(Line(column, run.title, run.main_metric, family, curve, share))
    return found


def dense_row(grid: Grid) -> str:
    """The row whose runs are the dense point of all curves; ValueError where there is none."""
    for row, settings in grid.rows.items():
        if settings.get(SETTING) == 0:
            return row
    raise ValueError(f"curves need the dense model among the rows of {grid.name}: add the row with sparsity 0.0")


def _sweeps_sparsity(grid: Grid, row: str) -> bool:
    return row in grid.rows and SETTING in grid.rows[row]


def _by_seed(grid: Grid, row: str, column: str) -> dict[int, Result]:
    return {cell.seed: result for cell in grid.at(row, column) if (result := cell.result())}


def _scores(runs: Mapping[int, Result]) -> dict[int, float]:
    return {seed: 100 * run.score for seed, run in runs.items()}


def drop_points(found: list[Line], eps: float, relative: bool) -> list[DropPoint]:
    """The drop point of every line."""
    return [drop_point.drop_point(line.curve, eps, relative=relative) for line in found]


def refinements(
    found: list[Line], chained: set[str], eps: float, relative: bool, least_step: float
) -> dict[str, dict[str, float]]:
    """Task -> method -> the sparsity in the middle of where the score first drops; nothing where that is known enough.

    Args:
        chained: methods whose runs start from one another, into which no value can be put.
        least_step: neighbouring sparsities that are not farther apart are near enough.
    """
    wanted: dict[str, dict[str, float]] = {}
    for line in found:
        around = drop_point.bracket(line.curve, eps, relative=relative)
        if around and line.method not in chained and around[1] - around[0] > least_step + 1e-9:
            wanted.setdefault(line.column, {})[line.method] = round(sum(around) / 2, 4)
    return wanted


HEADER = (
    "task", "method", "seeds", "dense score", "drops below", "essential sparsity", "95 % interval",
    "of the whole model", "on the grid", "knee", "verdict",
)  # fmt: skip


def as_markdown(found: list[Line], eps: float, relative: bool) -> str:
    """The drop points of all lines, with a caption that says what the words mean."""
    table = [_cells(line, point) for line, point in zip(found, drop_points(found, eps, relative), strict=True)]
    how = f"{eps:g} percent of the dense score" if relative else f"{eps:g} points"
    notes = (
        f"Essential sparsity: where the mean over seeds first falls more than {how} below the dense score, by straight "
        "lines between the points. Sparsity counts the matrices inside the layers; 'of the whole model' counts all "
        "weights. The interval draws seeds with replacement, all points of a seed together. On the grid: the largest "
        "sparsity that was run before the drop. Knee: the point farthest above the line from first to last, without "
        "eps. Undetermined: dense runs differ by more than eps (standard deviation over seeds), or there is only one."
    )
    return f"{markdown(HEADER, table)}\n\n{notes}\n"


def _cells(line: Line, point: DropPoint) -> tuple[str, ...]:
    curve = line.curve
    spread = f" ± {curve.std[0]:.2f}" if curve.num_seeds > 1 else ""
    last = f"above {curve.sparsities[-1]:.3f}"
    whole = last if point.crossing is None else f"{point.crossing * line.model_share:.3f}"
    if point.crossing is None:
        whole = f"above {curve.sparsities[-1] * line.model_share:.3f}"
    return (
        f"{line.title} {line.metric}",
        line.method,
        str(curve.num_seeds),
        f"{curve.mean[0]:.2f}{spread}",
        f"{point.threshold:.2f}",
        last if point.crossing is None else f"{point.crossing:.3f}",
        _interval(point, curve),
        whole,
        f"{point.on_grid:g}",
        "-" if point.knee is None else f"{point.knee:g}",
        point.verdict,
    )


def _interval(point: DropPoint, curve: Curve) -> str:
    if point.interval is None:
        return "-"
    low, high = point.interval
    return f"{low:.3f} to {f'above {curve.sparsities[-1]:g}' if high is None else f'{high:.3f}'}"


def as_csv(found: list[Line]) -> str:
    """Every point of every curve: one line per task, method, sparsity and seed number."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("task", "metric", "method", "sparsity", "sparsity_of_model", "seed_number", "score"))
    for line in found:
        for sparsity, scores in zip(line.curve.sparsities, line.curve.scores, strict=True):
            for number, score in enumerate(scores):
                place = (line.title, line.metric, line.method, sparsity, f"{sparsity * line.model_share:.6f}")
                writer.writerow((*place, number, f"{score:.4f}"))
    return out.getvalue()
