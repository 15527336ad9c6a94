"""Score over sparsity, from the result files of a grid: curves, drop points and what to run next; loads no model."""

from collections.abc import Mapping
from dataclasses import dataclass

from glue_sparse.analysis import drop_point
from glue_sparse.analysis.drop_point import Curve, DropPoint
from glue_sparse.experiments.cells import Grid
from glue_sparse.records.results import Result
from glue_sparse.records.scales import PERCENT, scale_of
from glue_sparse.reports.sheet import Sheet
from glue_sparse.writing.tables import csv_text, markdown
from glue_sparse.writing.words import command

SETTING = "sparsity"


@dataclass(frozen=True)
class Line:
    """What one method found on one task (a column): a row with a sweep, or a single row, such as an N:M pattern.

    Attributes:
        runs: sparsity -> seed -> score in points of a hundred, all that has run; 0 is the dense model.
        model_share: share of the model that the matrices are of which sparsity speaks.
        is_sweep: whether it has a drop point; a single row is one more point of the figure.
    """

    column: str
    title: str
    metric: str
    model: str
    method: str
    runs: dict[float, dict[int, float]]
    model_share: float
    is_sweep: bool

    @property
    def curve(self) -> Curve:
        """The points whose seeds are complete."""
        return Curve.of(self.runs)


def check(grid: Grid) -> None:
    """Raise a ValueError for a grid without the dense model or a sweep over sparsity, or one that tunes a setting."""
    if grid.tuned:
        setting = grid.tuned.setting
        raise ValueError(f"{grid.name} tunes {setting} point by point, but a curve is of one: give `{setting}`")
    dense_row(grid)
    if not _families(grid):
        raise ValueError(
            f"no row of {grid.name} that is chosen has a sweep over sparsity: sweep: {{sparsity: [0.1, 0.2]}}"
        )


def lines(sheet: Sheet) -> list[Line]:
    """One per task and method that has the dense runs and another point; raises as `check`."""
    grid = sheet.grid
    check(grid)
    dense, families, found = dense_row(grid), _families(grid), []
    single = {row: [row] for row in grid.rows if row != dense and row not in grid.family}
    for column in grid.columns:
        start = sheet.by_seed(dense, column)
        for method, rows in {**families, **single}.items():
            later = {_sparsity(grid, row, runs): _scores(runs) for row in rows if (runs := sheet.by_seed(row, column))}
            scores = {0.0: _scores(start), **later}
            if not any(start.keys() & seeds.keys() for seeds in later.values()):
                continue  # not yet run that far
            run = next(iter(start.values()))
            share = run.cost["masked_entries"] / run.cost["num_entries"]
            facts = (column, run.title, run.main_metric, run.model, method)
            found.append(Line(*facts, scores, share, method in families))
    return found


def _families(grid: Grid) -> dict[str, list[str]]:
    """Sweeps over sparsity -> their rows."""
    families: dict[str, list[str]] = {}
    for row, family in grid.family.items():
        if row in grid.rows and SETTING in grid.rows[row]:
            families.setdefault(family, []).append(row)
    return families


def _sparsity(grid: Grid, row: str, runs: Mapping[int, Result]) -> float:
    """What a row of a sweep asked for; of another row, what its runs have."""
    return grid.rows[row][SETTING] if row in grid.family else round(next(iter(runs.values())).cost["sparsity"], 4)


def dense_row(grid: Grid) -> str:
    """The row whose runs are the dense point of all curves; ValueError where there is none."""
    for row, settings in grid.rows.items():
        if settings.get(SETTING) == 0:
            return row
    raise ValueError(f"curves need the dense model among the rows of {grid.name}: add the row with sparsity 0.0")


def _scores(runs: Mapping[int, Result]) -> dict[int, float]:
    """Seed -> percent; ValueError for losses, which have no dense score of a hundred to drop from."""
    for run in runs.values():
        if scale_of(run.main_metric) is not PERCENT:
            raise ValueError(
                f"a drop point is of scores in percent, and {run.title} is scored by {run.main_metric}: draw its runs "
                f"with {command('pareto')} or {command('figure')}"
            )
    return {seed: PERCENT.shown(run.score) for seed, run in runs.items()}


def refinements(
    found: list[Line], chained: set[str], eps: float, relative: bool, least_step: float
) -> dict[str, dict[str, float]]:
    """Task -> method -> the sparsity in the middle of where the score first drops; nothing where that is known enough.

    Args:
        chained: methods whose runs start from one another, into which no value can be put.
        least_step: neighbouring sparsities that are not farther apart are near enough.
    """
    wanted: dict[str, dict[str, float]] = {}
    for line in (line for line in found if line.is_sweep):
        around = drop_point.bracket(line.curve, eps, relative=relative)
        if around and line.method not in chained and around[1] - around[0] > least_step + 1e-9:
            wanted.setdefault(line.column, {})[line.method] = round(sum(around) / 2, 4)
    return wanted


HEADER = (
    "task", "method", "seeds", "dense score", "drops below", "essential sparsity", "interval over seeds",
    "of the whole model", "on the grid", "knee", "verdict",
)  # fmt: skip


def as_markdown(found: list[Line], eps: float, relative: bool) -> str:
    """The drop points of all sweeps, with a caption that says what the words mean, and what is left out."""
    sweeps = [line for line in found if line.is_sweep]
    table = [_cells(line, drop_point.drop_point(line.curve, eps, relative=relative)) for line in sweeps]
    how = f"{eps:g} percent of the dense score" if relative else f"{eps:g} point{'' if eps == 1 else 's'}"
    models = ", ".join(dict.fromkeys(line.model for line in found))
    notes = (
        f"Model: {models}. Essential sparsity: where the mean over seeds first falls more than {how} below the dense "
        "score, by straight lines between the points. Sparsity counts the matrices inside the layers; 'of the whole "
        "model' counts all weights. The interval draws seeds with replacement, all points of a seed together; with "
        "3 seeds or fewer it is no more than the range of the single seeds. On the grid: the largest sparsity that was "
        "run before the drop. Knee: the point farthest above the line from first to last, without eps. Undetermined: "
        "dense runs differ by more than eps (standard deviation over seeds), there is only one, or points are left out."
    )
    return "\n\n".join([markdown(HEADER, table), *_left_out(sweeps), notes]) + "\n"


def _left_out(sweeps: list[Line]) -> list[str]:
    texts = []
    for line in sweeps:
        for sparsity in line.curve.left_out:
            there = ", ".join(map(str, sorted(line.runs[sparsity])))
            texts.append(f"Left out: {line.title}, {line.method} at {sparsity:g}, which has seeds {there} only.")
    return texts


def _cells(line: Line, point: DropPoint) -> tuple[str, ...]:
    curve, crossing = line.curve, point.crossing
    spread = f" ± {curve.std[0]:.2f}" if curve.num_seeds > 1 else ""
    word, place = ("above ", curve.sparsities[-1]) if crossing is None else ("", crossing)
    return (
        f"{line.title} {line.metric}",
        line.method,
        str(curve.num_seeds),
        f"{curve.mean[0]:.2f}{spread}",
        f"{point.threshold:.2f}",
        f"{word}{place:.3f}",
        _interval(point, curve),
        f"{word}{place * line.model_share:.3f}",
        f"{point.on_grid:g}",
        "-" if point.knee is None else f"{point.knee:g}",
        point.verdict,
    )


def _interval(point: DropPoint, curve: Curve) -> str:
    if point.interval is None:
        return "-"
    low, high = point.interval
    if high is None and low >= curve.sparsities[-1]:
        return f"above {low:g}"
    return f"{low:.3f} to {f'above {curve.sparsities[-1]:g}' if high is None else f'{high:.3f}'}"


def as_csv(found: list[Line]) -> str:
    """Every run: one line per task, method, sparsity and seed."""
    header = ("model", "task", "metric", "method", "sparsity", "sparsity_of_model", "seed", "score")
    lines = []
    for line in found:
        for sparsity, scores in sorted(line.runs.items()):
            place = (line.model, line.title, line.metric, line.method, sparsity, f"{sparsity * line.model_share:.6f}")
            lines += [(*place, seed, f"{score:.4f}") for seed, score in sorted(scores.items())]
    return csv_text(header, lines)
