"""Grids of runs: from a YAML of base settings, stages, rows, columns and seeds to the cells it stands for."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from glue_sparse.arguments.command_line import DEFAULTS
from glue_sparse.experiments import grid_file, reported, sweeps, tuning
from glue_sparse.experiments.cells import PROCESSES, START, Cell, Grid, Tuned
from glue_sparse.experiments.grid_file import called
from glue_sparse.experiments.told import parse, settings_of
from glue_sparse.methods import registry as methods
from glue_sparse.records import published
from glue_sparse.tasks import registry as tasks
from glue_sparse.writing.words import check_one_of, closest, prefixed, shortened


def read(
    path: Path,
    *,
    tasks: Sequence[str] = (),
    rows: Sequence[str] = (),
    seeds: Sequence[int] = (),
    output_dir: Path | None = None,
    flags: Sequence[str] = (),
    more: Mapping[str, Sequence[float]] | None = None,
    tune_values: Sequence[float] = (),
    num_processes: int | None = None,
) -> Grid:
    """The grid that a YAML describes; every cell's settings are checked before this returns.

    What it leaves open is in `command_line.DEFAULTS`. A tuned setting has, in each place, what trials there choose.

    Args:
        path: a YAML, or the name of a grid that comes with the package.
        tasks, rows: keep only these; a column goes by its task or its name, a row with a sweep by that of the row.
        seeds, output_dir: instead of the YAML's seeds, and of the folder runs/GRID/MODEL.
        flags: further flags of `glue-sparse train` for every cell; they win over the YAML.
        more: row with a sweep -> values beside those of the YAML.
        tune_values: instead of the values that the YAML tries for the setting it tunes.
        num_processes: that share the batches of every run, instead of what the YAML says; not of workers that merge.
    Raises:
        ValueError: an unknown key, method or task, a duplicate seed, an empty grid, a bad value.
    """
    path = grid_file.place(path)
    config, root = grid_file.load(path), _root(output_dir or Path("runs", path.stem))
    part = partial(_grid, path, tasks=tasks, flags=flags, num_processes=num_processes)
    with prefixed(called(path)):
        tune = tuning.wanted(config, flags, tune_values)
    if not tune:
        return part(config, root, rows=rows, seeds=seeds, more=more)
    all_rows, kept_rows, _ = _rows(path, config, rows, more)
    with prefixed(called(path)):
        tuning.check(tune, config, all_rows)
    tuned = _tuned(tune, part, config, root, kept_rows, grid_file.check_seeds(path, list(seeds) or config.get("seeds")))
    picked = {place: {tune.setting: value} for place, value in tuned.used.items()}
    return replace(part(config, root, rows=rows, seeds=seeds, more=more, picked=picked), tuned=tuned)


def of_one_run(
    tune: tuning.Tune, flags: Sequence[str], seeds: Sequence[int], root: Path, num_processes: int | None = None
) -> Grid:
    """The trials of one run: a row for each value of the setting that is tried, on held-out training data.

    Args:
        flags: of `glue-sparse train`; they name method and task, and neither the setting nor a seed.
        root: folder of the trials.
        num_processes: of each trial, to share its batches.
    Raises:
        ValueError: as `read`.
    """
    path, told = Path(tuning.FOLDER), parse(flags, config=DEFAULTS)
    column, row = tasks.find(told.task.task).name, told.method.method
    config = tune.trials({"columns": {column: {}}}, {row: {}}, seeds[0])
    every = {**config, "seeds": [*seeds]}
    return _grid(path, every, _root(root), tasks=(), flags=flags, num_processes=num_processes)


def _root(folder: Path) -> Path:
    """Where the runs of a grid are; ValueError for a file, which none of them could write to."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"`output_dir` {shortened(folder)} is no folder: give another")
    return folder


def _tuned(
    tune: tuning.Tune,
    part: Callable[[dict[str, Any], Path], Grid],
    config: dict[str, Any],
    root: Path,
    rows: Mapping[str, dict[str, Any]],
    seeds: tuple[int, ...],
) -> Tuned:
    """The values that trials choose; `part` makes a grid of a YAML's content and the folder of its runs."""
    trials = part(tune.trials(config, rows, seeds[0]), root / tuning.FOLDER)
    trials = replace(trials, name=f"{trials.name}/{tuning.FOLDER}")
    return tuning.choose(tune, trials, tuple(rows), seeds, root)


def _grid(
    path: Path,
    config: dict[str, Any],
    root: Path,
    *,
    tasks: Sequence[str],
    flags: Sequence[str],
    rows: Sequence[str] = (),
    seeds: Sequence[int] = (),
    more: Mapping[str, Sequence[float]] | None = None,
    picked: Mapping[tuple[str, str], dict[str, Any]] | None = None,
    num_processes: int | None = None,
) -> Grid:
    """The grid of what a YAML says, as `read`; `picked` settings of single places win over those of their row."""
    all_rows, kept_rows, family = _rows(path, config, rows, more)
    starts = _starts(path, config, all_rows, kept_rows)
    kept_columns = _of_tasks(path, grid_file.named(path, config, "columns"), tasks)
    grid_file.check_apart(path, config["columns"])
    all_seeds = grid_file.check_seeds(path, list(seeds) or config.get("seeds"))
    varied = {key for part in (starts, kept_rows, kept_columns) for s in part.values() for key in s}
    _no_clash(path, {**settings_of(flags), **({PROCESSES: "`num_processes`"} if num_processes else {})}, varied)
    named, cells = {**starts, **kept_rows}, {}
    for level in _levels(named):  # what others start from comes first
        for seed, column, row in product(all_seeds, kept_columns, level):
            own = {**kept_columns[column], **named[row], **(picked or {}).get((row, column), {}), "seed": seed}
            settings = {**_of_base(config.get("base") or {}, own), **own}
            start = cells[settings.pop(START), column, seed] if START in settings else None
            count = num_processes or settings.get(PROCESSES, 1)
            with prefixed(f"{called(path)}, {row}/{column}"):
                words = [*_argv({k: v for k, v in settings.items() if k != PROCESSES}), *flags]
                cell = _cell(path.stem, row, column, seed, words, root, start)
                cells[row, column, seed] = cell.shared(count, is_told=PROCESSES in own)
    shown, title = (kept_rows, kept_columns, all_seeds, tuple(cells.values())), str(config.get("title", path.stem))
    told = _sources(path, config), config.get("figure") or {}, family
    return Grid(path.stem, title, *shown, *told, notes=_notes(path, config))


def _of_base(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """What a grid's base says, which is for many methods, without what that of this cell ignores."""
    method = methods.known().get(str({**base, **own}.get("method")))
    return {key: value for key, value in base.items() if method is None or key not in method.ignores}


def _rows(
    path: Path, config: dict[str, Any], wanted: Sequence[str], more: Mapping[str, Sequence[float]] | None
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]], dict[str, str]]:
    """All rows, sweeps expanded, those that are wanted, and row -> the row of the YAML with its sweep."""
    named = grid_file.named(path, config, "rows")
    with prefixed(called(path)):
        rows, family = sweeps.expand(named, more or {})
    return rows, _chosen(path, rows, family, wanted), family


def further_values(path: Path, grid: Grid) -> dict[str, list[float]]:
    """Values of sweeps that have runs beside those of a grid, whether or not its YAML names them, for `read`."""
    rows = grid_file.named(path, grid_file.load(grid_file.place(path)), "rows")
    return sweeps.further_values(grid.cells[0].folder.parents[2], rows)


def _levels(named: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Rows by how many others they need first."""

    def depth(row: str) -> int:
        return 1 + depth(named[row][START]) if START in named[row] else 0

    depths = {row: depth(row) for row in named}
    return [[row for row in named if depths[row] == level] for level in range(1 + max(depths.values(), default=0))]


def _sources(path: Path, config: dict[str, Any]) -> tuple[str, ...]:
    """Names of published numbers, each of which can be read."""
    sources = tuple(config.get("published") or ())
    with prefixed(called(path)):
        for name in sources:
            published.read(name)
    return sources


def _notes(path: Path, config: dict[str, Any]) -> dict[str, str]:
    """Phrases about rows, each of which is there."""
    notes = config.get("notes") or {}
    with prefixed(f"{called(path)}, `notes`"):
        for row in notes:
            check_one_of("row", row, config["rows"])
    return notes


def _starts(
    path: Path, config: dict[str, Any], rows: dict[str, dict[str, Any]], kept: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The stages and rows that the kept rows start from, and those that these start from."""
    stages = grid_file.named(path, config, "stages") if "stages" in config else {}
    for name in stages.keys() & rows.keys():
        raise ValueError(f"{called(path)}: {name!r} is both a stage and a row")
    grid_file.check_apart(path, [*stages, *rows])
    known, found = {**stages, **rows}, {}
    for row in kept:
        chain = [row]
        while (start := known[chain[-1]].get(START)) is not None:
            if start not in known:
                hint = closest(str(start), known, otherwise=_list(known))
                raise ValueError(f"{called(path)}: row {chain[-1]} starts from {start!r}, which is no stage or row"
                                 f"{hint}")  # fmt: skip
            if start in chain:
                raise ValueError(f"{called(path)}: row {row} starts, in the end, from itself")
            found[start] = known[start]
            chain.append(start)
    return found


def _chosen(
    path: Path, rows: dict[str, dict[str, Any]], family: dict[str, str], wanted: Sequence[str]
) -> dict[str, Any]:
    names = dict.fromkeys([*family.values(), *rows])
    for name in wanted:
        if name not in names:
            raise ValueError(f"{called(path)} has no row {name!r}{closest(name, names, otherwise=_list(names))}")
    return {n: settings for n, settings in rows.items() if not wanted or n in wanted or family.get(n) in wanted}


def _of_tasks(path: Path, columns: dict[str, dict[str, Any]], tasks: Sequence[str]) -> dict[str, dict[str, Any]]:
    task_of = {name: str(settings.get("task", name)) for name, settings in columns.items()}
    for task in tasks:
        if task not in {*task_of, *task_of.values()}:
            hint = closest(task, [*task_of.values(), *task_of], otherwise=_list([*task_of.values(), *task_of]))
            raise ValueError(f"{called(path)} has no column for task {task!r}{hint}")
    return {name: settings for name, settings in columns.items() if not tasks or {name, task_of[name]} & {*tasks}}


def _list(known: Iterable[str]) -> str:
    return f"; there are {', '.join(dict.fromkeys(known))}"


def _no_clash(path: Path, given: Mapping[str, str], varied: set[str]) -> None:
    """A flag that overrode what stages, rows or columns differ in would make them the same run.

    Args:
        given: setting -> flag as it was typed.
    """
    for name, word in given.items():
        if name in {*varied, *grid_file.DECIDED}:
            raise ValueError(f"{word} is decided by {called(path)}: choose rows, `tasks`, `seeds` or `output_dir` of "
                             "the grid")  # fmt: skip


def _argv(settings: dict[str, Any]) -> list[str]:
    """Settings as a command line; lists become several words, and mappings JSON."""
    words = []
    for key, value in settings.items():
        values = value if isinstance(value, list) else [value]
        words += [f"--{key}", *map(_word, values)]
    return words


def _word(value: Any) -> str:
    if isinstance(value, dict):
        return json.dumps(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _cell(
    grid: str, row: str, column: str, seed: int, argv: list[str], root: Path, start: Cell | None
) -> Cell:
    first = parse(argv, config=DEFAULTS)
    tasks.check(first.task, first.model)
    if first.merge.merge_every and not first.merge.num_workers:
        raise ValueError("`merge_every` needs `num_workers` in a grid")
    model = str(first.model.model)
    if not Path(model).name.strip("."):
        raise ValueError(f"the folder of runs is called as the model: give `model` {model} by its own name")
    folder = root / Path(model).name / row / column / f"seed{seed}"
    argv = [*argv, "--output_dir", str(folder), *reported.flags(first, grid, folder.relative_to(root), argv)]
    prunes_start = methods.find(first.method.method).prunes_start
    if start:
        argv += ["--start_diff", str(folder / "start" if prunes_start else start.folder)]
    arguments = parse(argv, config=DEFAULTS)
    return Cell(row, column, seed, arguments, tuple(argv), start, start is not None and prunes_start)
