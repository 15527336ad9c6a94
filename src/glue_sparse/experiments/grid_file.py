"""The YAML of a grid as it is written: its parts, the names that become folders, and what settings may be."""

import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from glue_sparse.arguments.yaml_file import yaml_object
from glue_sparse.experiments import tuning
from glue_sparse.experiments.cells import START
from glue_sparse.experiments.sweeps import CHAIN, SWEEP
from glue_sparse.experiments.told import settings_of
from glue_sparse.writing.fields import typed
from glue_sparse.writing.words import check_one_of, command, prefixed, shown

KINDS: dict[str, Any] = {
    "title": str | int | float, "base": dict[str, Any] | None, "stages": dict[str, Any], "rows": dict[str, Any],
    "columns": dict[str, Any], "seeds": list[Any], tuning.KEY: Any, "published": list[str] | None,
    "figure": dict[str, Any] | None, "notes": dict[str, str] | None,
}  # fmt: skip
"""Part of a grid -> what it is in a YAML."""
DECIDED = ("seed", "output_dir", "overwrite", "resume_from_checkpoint")
"""Settings of runs that a grid decides itself."""
_OWN: dict[str, tuple[str, ...]] = {"rows": (START, SWEEP, CHAIN), "stages": (START,), "columns": ()}
"""Part of a grid -> what its settings may hold that is no flag."""
_HELP = ("help", "help_all")
SHIPPED = Path(__file__).parents[1] / "configs"
"""The grids that come with the package, a YAML for each published table or figure."""


def names() -> list[str]:
    """The grids that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def place(named: Path) -> Path:
    """Where a grid is: a file of that path, or else one that comes with the package, by its name.

    Raises:
        ValueError: neither is there.
    """
    if named.is_file() or named.suffix or named.name != str(named):
        return named
    with prefixed(f"no file {shown(str(named))}"):
        check_one_of("grid", str(named), names(), otherwise=f"see `{command('table list')}`")
    return SHIPPED / f"{named}.yaml"


def called(path: Path) -> str:
    """A grid as sentences name it: one that comes with the package by its name, any other by its path."""
    return f"grid {path.stem}" if path.parent == SHIPPED else str(path)


def load(path: Path) -> dict[str, Any]:
    """What a YAML says, each part of its kind.

    Raises:
        ValueError: it cannot be read, has an unknown part, or one of another kind.
    """
    if not path.stem.strip("."):
        raise ValueError(f"{called(path)}: a grid's runs are below a folder of its name: give the file another one")
    config = yaml_object(path)
    with prefixed(called(path)):
        for key, value in config.items():
            check_one_of("key", key, KINDS)
            typed(KINDS[key], value, f"`{key}`")
        _check_settings("base", config.get("base") or {}, ())
    return {**config, "base": _by_name(config.get("base") or {})}


def named(path: Path, config: Mapping[str, Any], part: str) -> dict[str, dict[str, Any]]:
    """The stages, rows or columns of a grid: name -> settings."""
    if not config.get(part):
        raise ValueError(f"{called(path)}: the grid is empty: `{part}` names nothing")
    for name, settings in config[part].items():
        if not re.fullmatch(r"[\w.+-]+", name) or not name.strip("."):
            raise ValueError(f"{called(path)}: {name!r} in `{part}` becomes a folder: use letters, digits and . _ + - "
                             "only")  # fmt: skip
        if not isinstance(settings, dict):
            raise ValueError(f"{called(path)}: {name} in `{part}` maps flags to values, for example {{method: fish}}")
        with prefixed(called(path)):
            _check_settings(f"{name} in `{part}`", settings, _OWN[part])
    starts = {name: {key: str(settings[key]) for key in (START, CHAIN) if key in settings}
              for name, settings in config[part].items()}  # fmt: skip
    return {name: {**_by_name(settings), **starts[name]} for name, settings in config[part].items()}


def _by_name(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under the name that all parts of a grid have for them, so that a row's wins over one of the base."""
    return {key.replace("-", "_"): value for key, value in settings.items()}


def check_apart(path: Path, names: Iterable[str]) -> None:
    """Raise a ValueError for names that are one folder where file systems do not tell cases apart."""
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(name.casefold(), name)) != name:
            raise ValueError(f"{called(path)}: {other!r} and {name!r} differ only by case, and become one folder on "
                             "some disks: rename one")  # fmt: skip


def _check_settings(where: str, settings: Mapping[str, Any], own: Collection[str]) -> None:
    """Raise a ValueError for a setting that a command line could not give as it is, or that the grid decides."""
    for key, value in settings.items():
        what = f"{key} of {where}"
        if (name := key.replace("-", "_")) != key and name in settings:
            raise ValueError(f"{where} has {name} and {key}, which are the same: leave one out")
        if key in _OWN["rows"] and key not in own:
            raise ValueError(f"{what} is not for that part of a grid, but for its rows: leave it out there")
        if key == SWEEP:
            continue
        if key in (START, CHAIN):
            typed(str | int | float, value, what)
            continue
        for name in settings_of([f"--{key}"]).keys() | {key}:
            if name in (*DECIDED, *_HELP):
                raise ValueError(f"{what} is not for a grid, which decides it for each run: leave it out")
        typed(dict[str, Any] | list[str | int | float | bool] | str | int | float | bool, value, what)
        for word in value if isinstance(value, list) else [value]:
            _check_word(str(word), what)


def _check_word(word: str, what: str) -> None:
    if word.startswith("--") or word == "-h":
        raise ValueError(f"{what} begins like a flag: {word!r}")
    try:
        os.fsencode(word)
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} cannot be given to a run: {word!r}") from error
    if "\0" in word:
        raise ValueError(f"{what} cannot be given to a run: {word!r}")


def check_seeds(path: Path, seeds: Any) -> tuple[int, ...]:
    """The seeds of a grid, as they are given; raises where they are none."""
    if not seeds:
        raise ValueError(f"{called(path)}: the grid is empty: `seeds` names none")
    for seed in seeds:
        with prefixed(called(path)):
            tuning.check_seed("a seed", seed)
        if seeds.count(seed) > 1:
            raise ValueError(f"{called(path)}: seed {seed} is given twice")
    return tuple(seeds)
