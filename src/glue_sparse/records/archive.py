"""The finished runs of grids in one small file: what tables, figures and claims need, and which settings were given."""

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from glue_sparse.records import results
from glue_sparse.records.results import Result
from glue_sparse.records.shared_facts import Facts, common, together, without
from glue_sparse.records.thinned import packed, spread
from glue_sparse.writing import aside
from glue_sparse.writing.fields import json_object, text_of, typed
from glue_sparse.writing.files import json_text, without_infinite, write_text
from glue_sparse.writing.words import prefixed

VERSION = 1
TRIALS = "tune"
"""Folder within that of a grid's runs where the runs lie that choose a setting; they are a grid of their own."""
_SEED = re.compile(r"seed(\d+)")


@dataclass(frozen=True)
class Entry:
    """A finished run and its place.

    Attributes:
        grid: GRID, or GRID/tune for a run that helped to choose a setting; empty for a run of no grid, whose `row` is
            then its folder.
        model: name of the folder of a model's runs.
    """

    grid: str
    model: str
    row: str
    column: str
    seed: int
    result: Result

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """What no two runs share."""
        return self.grid, self.model, self.row, self.column, self.seed

    @property
    def whole_grid(self) -> str:
        """GRID, also for a run that helped to choose a setting of it."""
        return self.grid.partition("/")[0]

    @property
    def name(self) -> str:
        """GRID/MODEL/ROW/COLUMN/seedN, which is also the folder of the run below that of all runs."""
        return "/".join((self.grid, self.model, self.row, self.column, f"seed{self.seed}")).lstrip("/")


def read(places: Iterable[Path]) -> list[Entry]:
    """The runs at some places, in the order of their grids, models, rows, columns and seeds.

    Args:
        places: files of `write`, folders of such files, and folders of runs (runs/, runs/GRID, runs/GRID/MODEL). Where
            a run is found twice, the one in a folder counts, and of two files the later.
    Raises:
        ValueError: a place is not there or holds neither, or a file is no archive. In folders, what is no result is
            named in a warning and left out.
    """
    archived, run = dict[tuple[Any, ...], Entry](), dict[tuple[Any, ...], Entry]()
    for place in places:
        files = [place] if place.is_file() else sorted(place.glob("*.json"))
        below = aside.runs_below(place, results.FILE_NAME) if place.is_dir() else []
        files = [path for path in files if path.name != results.FILE_NAME]
        if not files and not below:
            raise ValueError(f"{place} holds no results: give an archive, a folder of archives or a folder of runs")
        archived.update({one.key: one for path in files for one in _read(path)})
        run.update({one.key: one for one in _run(place, below)})
    return sorted({**archived, **run}.values(), key=lambda one: one.key)


def write(entries: Sequence[Entry], path: Path) -> Path:
    """Write runs to one file; returns its path.

    What runs share stands once: what all share, then those of a column, then those of a row. Of the history stay all
    evaluations and, of each other kind of log, 40 that are spread over the run. Settings that say where a run was done
    are left out, and in the command a path from the root is shown as `path/to/NAME`.

    Raises:
        ValueError: a number is not finite, or a run is of no grid.
    """
    entries = sorted(entries, key=lambda one: one.key)
    for one in entries:
        if _place(one.name.split("/")) != one.key:
            raise ValueError(f"{one.row} is no run of a grid, which GRID/MODEL/ROW/COLUMN/seedN is: leave it out")
    left = {one.name: _compact(one.result) for one in entries}
    shared = common([*left.values()])
    left = {name: without(facts, shared) for name, facts in left.items()}
    levels = dict[str, dict[str, Facts]]()
    for level, of in _LEVELS.items():
        found = dict[str, Facts]()
        for group, some in groupby(sorted(entries, key=of), of):
            names = [one.name for one in some]
            found[group] = common([left[name] for name in names]) if len(names) > 1 else {}
            left.update({name: without(left[name], found[group]) for name in names})
        levels[level] = {group: facts for group, facts in found.items() if facts}
    parts = [f'"version": {VERSION}', f'"shared": {_json(shared)}']
    parts += [f'"{level}": {_lines(facts)}' for level, facts in {**levels, "runs": left}.items()]
    return write_text(path, "{{\n{}\n}}\n".format(",\n".join(parts)))


_LEVELS: dict[str, Callable[[Entry], str]] = {
    "columns": lambda one: f"{one.grid}/{one.model}/{one.column}",
    "rows": lambda one: f"{one.grid}/{one.model}/{one.row}",
}  # fmt: skip
"""Name of a part of the file -> which of its groups a run is of."""


def unpack(entries: Iterable[Entry], folder: Path) -> None:
    """Write runs to folders of their own below `folder`, as a grid leaves them, for whatever reads such folders."""
    for one in entries:
        results.write(one.result, folder / one.name)


def _lines(facts: dict[str, Facts]) -> str:
    """An object with a line for each value, so that a version control shows which run changed."""
    return "{{\n{}\n}}".format(",\n".join(f"{_json(key)}: {_json(value)}" for key, value in facts.items()))


def _json(value: Any) -> str:
    return json_text(value, "these results", sort_keys=True, separators=(",", ":"))


def _compact(result: Result) -> Facts:
    given = results.settings(result.arguments)
    facts = asdict(replace(result, arguments=given, command=_without_places(result.command)))
    return {**facts, "history": packed(without_infinite(result.history))}


def _without_places(command: str) -> str:
    """A command as anyone may type it: program by its name, and no path that only its machine has."""
    program, *words = shlex.split(command) or [""]
    words = [re.sub(r"^(--\w+=)?/(?:.*/)?([^/]+)/*$", r"\1path/to/\2", word) for word in words]
    if program.endswith(".py"):
        program = f"glue-sparse {Path(program).stem.replace('_', '-')}"
    return " ".join([program, *map(shlex.quote, words)])


def _read(path: Path) -> Iterator[Entry]:
    with prefixed(f"{path} is no archive of results"):
        facts = json_object(text_of(path), "it")
        if facts.get("version") != VERSION:
            raise ValueError(f"its `version` must be {VERSION}: write it again with `glue-sparse results collect`")
        kind = dict[str, dict[str, Any]]
        parts = {name: typed(kind, facts.get(name), f"`{name}` of it") for name in (*_LEVELS, "runs")}
        shared = typed(dict[str, Any], facts.get("shared"), "`shared` of it")
        for name, own in parts["runs"].items():
            place = _place(Path(name).parts)
            if place is None:
                raise ValueError(f"{name!r} is no GRID/MODEL/ROW/COLUMN/seedN")
            groups = [parts[level].get(of(Entry(*place, result=_ANY)), {}) for level, of in _LEVELS.items()]
            whole = together((shared, *groups, own))
            with prefixed(name):
                yield Entry(*place, results.of({**whole, "history": spread(whole.get("history"))}))


_ANY: Any = None
"""The result of an entry of which only the place is asked."""


def _run(place: Path, paths: Sequence[Path]) -> Iterator[Entry]:
    for path, result in results.readable(paths):
        found = _place(path.parent.absolute().parts, is_on_disk=True)
        if found is None:
            row = path.parent.relative_to(place).as_posix()
            row = path.parent.absolute().name if row == "." else row
            found = "", Path(result.model).name, row, result.task, result.seed
        yield Entry(*found, result)


def _place(parts: Sequence[str], is_on_disk: bool = False) -> tuple[str, str, str, str, int] | None:
    """Grid, model, row, column and seed from the names of folders; none where they do not stand for these."""
    seed = _SEED.fullmatch(parts[-1]) if parts else None
    if seed is None or len(parts) < 5:
        return None
    *above, grid, model, row, column, _ = parts
    if grid == TRIALS and above:
        grid = f"{above.pop()}/{grid}"
    return None if above and not is_on_disk else (grid, model, row, column, int(seed[1]))
