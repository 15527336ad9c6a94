"""Tables from result files as markdown, CSV and LaTeX; loads no model."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from glue_sparse.experiments.cells import Grid
from glue_sparse.records import published
from glue_sparse.records.published import Published
from glue_sparse.records.results import Result
from glue_sparse.records.scales import Scale, scale_of
from glue_sparse.reports import comparisons, cost_tables, side_by_side, trials
from glue_sparse.reports.places import Place
from glue_sparse.reports.sheet import Sheet
from glue_sparse.writing import files as whole_files
from glue_sparse.writing.sentences import one_line
from glue_sparse.writing.tables import csv_text, heading, markdown

HEADER = ("task", "method", "density", "score", "metric", "trainable weights", "of all", "stored bytes", "train s")


def rows(found: Sequence[Result]) -> list[tuple[str, ...]]:
    """One line of text cells per run, as in `HEADER`; scores in percent, losses as they are."""
    return [
        (
            result.title,
            _method(result),
            _density(result),
            _score(result),
            result.main_metric,
            f"{result.trained_entries:,}",
            f"{result.trained_entries / result.cost['num_entries']:.3%}",
            f"{result.cost['stored_bytes']:,}",
            f"{result.seconds['train'] + result.seconds['choose']:.0f}",
        )
        for result in found
    ]


def _score(result: Result) -> str:
    scale = scale_of(result.main_metric)
    return scale.text(scale.shown(result.score))


def _method(result: Result) -> str:
    """The method, and what it chose by where that is not the default."""
    chosen = (result.arguments.get(key) for key in ("score", "criterion", "distribution", "pattern"))
    return " ".join([result.method, *(str(value) for value in chosen if value)])


def _density(result: Result) -> str:
    if result.cost.get("zero_entries"):
        return f"{1 - result.cost['sparsity']:.4g} of the pruned tensors"
    return f"{result.density:g}" if result.density is not None else "-"


def table(sheet: Sheet, plus_minus: str = "±") -> tuple[list[str], list[list[str]]]:
    """Header and lines: one per row, and below it what was published for it."""
    grid = sheet.grid
    several, tuned = _has_mean(sheet), [grid.tuned.setting] if grid.tuned else []
    interval = sheet.statistics.interval
    header = ["", "weights trained", *tuned, *sheet.titles_with_metric.values()]
    lines = []
    for row in grid.rows:
        line = [sheet.places[row, column] for column in grid.columns]
        means = [place.mean for place in line] if all(place.is_complete for place in line) else []
        last = [_mean_text(means, line[0].scale)] if several else []
        told = [trials.told_by([place.found for place in line], setting) for setting in tuned]
        lines.append([row, _trained(line), *told, *(place.text(plus_minus, interval) for place in line), *last])
        lines += [_published_line(source, row, grid, several) for source in comparable(grid, row)]
    return [*header, *(["mean"] if several else [])], lines


def _has_mean(sheet: Sheet) -> bool:
    """Whether columns differ in their data: a mean of the same task under several settings says little.

    Nor does one of percents and losses.
    """
    grid = sheet.grid
    if len(sheet.scales) > 1:
        return False
    data = ("task", "data_dir", "train_file", "validation_file")
    firsts = [grid.at(next(iter(grid.rows)), column)[0] for column in grid.columns]
    return len({tuple(cell.value(key) for key in data) for cell in firsts}) > 1


def comparable(grid: Grid, row: str) -> list[Published]:
    """The sources that say something about a row, and whose settings the row shares."""
    arguments = grid.at(row, next(iter(grid.columns)))[0].arguments
    sources = [published.read(name) for name in grid.published]
    return [
        source
        for source in sources
        if source.has(row, grid.columns) and all(arguments.value(k) == v for k, v in source.settings.items())
    ]


def _trained(line: Sequence[Place]) -> str:
    found = [result for place in line for result in place.found]
    shares = {f"{r.trained_entries / r.cost['num_entries']:.3%}{_zeros(r)}": None for r in found}
    return " / ".join(shares) or "-"


def _zeros(result: Result) -> str:
    """Of a pruned model, the zeros among the tensors that pruning may take from, and among all weights."""
    cost = result.cost
    if not cost.get("zero_entries"):
        return ""
    return f" (zero: {cost['sparsity']:.1%} of the pruned tensors, {cost['model_sparsity']:.1%} of all)"


def _mean_text(values: Sequence[float], scale: Scale) -> str:
    return scale.text(mean(values)) if values else "-"


def _published_line(source: Published, row: str, grid: Grid, several: bool) -> list[str]:
    values = [source.value(row, column) for column in grid.columns]
    known = [value for value in values if value is not None]
    texts = ["-" if value is None else source.scale.text(value) for value in values]
    last = [_mean_text(known if len(known) == len(values) else [], source.scale)] if several else []
    return [f"{row}, {source.name}", "", *([""] if grid.tuned else []), *texts, *last]


def captions(sheet: Sheet) -> list[str]:
    """What a reader must know to read the table: how cells are written, and where published numbers come from."""
    grid, units = sheet.grid, " or ".join(scale.unit for scale in sheet.scales)
    spread, interval = "sample standard deviation over seeds", sheet.statistics.interval
    if interval is not None:
        spread = f"half of its {interval:g}% t interval over seeds, which one seed alone does not have,"
    lines = [f"Mean ± {spread} in {units} (number of seeds); - : no run.", *comparisons.captions(sheet)]
    if _has_mean(sheet):
        lines.append("`mean`: of the columns, where each of them has all its seeds.")
    lines += trials.captions(grid)
    sources = {source.name: source for row in grid.rows for source in comparable(grid, row)}
    for source in sources.values():
        lines += [f"{source.name}: {source.source}.", *source.notes]
    return lines


def as_markdown(sheet: Sheet) -> str:
    """The table with its captions, then trials, FLOPs and the bytes of merges and checkpoints where there are any."""
    grid = sheet.grid
    parts = [heading(grid.title), markdown(*table(sheet)), "\n".join(f"* {line}" for line in captions(sheet))]
    more = {
        comparisons.heading(sheet): comparisons.table(sheet),
        "What each costs, and what it is good for (seed of the first run found):": side_by_side.table(sheet),
        f"Trials on held-out data, {trials.unit(grid)}; the chosen one is bold:": trials.table(grid),
        "FLOPs, multiplications and additions (seed of the first run found):": cost_tables.flops(sheet),
        "Bytes sent by each worker (seed of the first run found):": cost_tables.communication(sheet),
        "Bytes per checkpoint (seed of the first run found):": cost_tables.checkpoints(sheet),
    }
    for what, (header, lines) in more.items():
        parts += [what, markdown(header, lines)] if lines else []
    return "\n\n".join(parts) + "\n"


def as_csv(sheet: Sheet) -> str:
    """One line per row, column and source of numbers; what was chosen on held-out data has a column of its own."""
    grid = sheet.grid
    tuned, lines = [grid.tuned.setting] if grid.tuned else [], []
    further, cells = comparisons.in_csv(sheet)
    for (row, column), place in sheet.places.items():
        first = place.found[0] if place.found else None
        title, metric = (first.title, first.main_metric) if first else ("", "")
        value = place.mean if first else None
        told = [trials.told_by([place.found], setting) for setting in tuned]
        more = [*told, *cells[row, column]]
        lines.append((row, column, title, metric, value, place.std, len(place.found), place.wanted, "measured", *more))
        for source in comparable(grid, row):
            number = source.value(row, column)
            if number is not None:
                origin = f"{source.name}: {source.source}"
                lines.append((row, column, None, None, number, None, None, None, origin, *(None for _ in more)))
    header = ("row", "column", "title", "metric", "mean", "std", "seeds", "seeds_wanted", "source", *tuned, *further)
    return csv_text(header, lines)


def as_latex(sheet: Sheet) -> str:
    """A table for the `booktabs` package."""
    notes = [f"% {one_line(line)}" for line in (sheet.grid.title, *captions(sheet))]
    parts = [*notes, *_tabular(*table(sheet, plus_minus=r"\pm"), left=2)]
    header, lines = comparisons.table(sheet, plus_minus=r"\pm")
    if lines:
        parts += ["", f"% {one_line(comparisons.heading(sheet))}", *_tabular(header, lines, left=1)]
    return "\n".join(parts) + "\n"


def _tabular(header: Sequence[str], lines: Sequence[Sequence[str]], left: int) -> list[str]:
    """Its first `left` columns are words."""
    body = [" & ".join(map(_latex, line)) + r" \\" for line in (header, *lines)]
    columns = "l" * left + "r" * (len(header) - left)
    start = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", body[0], r"\midrule"]
    return [*start, *body[1:], r"\bottomrule", r"\end{tabular}"]


def _latex(text: str) -> str:
    text = one_line(text)
    for character in "&%_#":
        text = text.replace(character, rf"\{character}")
    return text.replace(r"\pm", r"$\pm$").replace("<", "$<$")


def write(sheet: Sheet, folder: Path) -> list[Path]:
    """Write NAME.md, NAME.csv and NAME.tex; returns their paths."""
    texts = {"md": as_markdown(sheet), "csv": as_csv(sheet), "tex": as_latex(sheet)}
    return whole_files.write_texts({folder / f"{sheet.grid.name}.{ending}": text for ending, text in texts.items()})
