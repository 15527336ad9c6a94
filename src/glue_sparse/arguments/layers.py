"""Defaults in layers: what a YAML gives for every run, and for those that match a condition."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glue_sparse.arguments.trainer_facts import OF
from glue_sparse.arguments.yaml_file import yaml_object
from glue_sparse.writing.fields import typed
from glue_sparse.writing.words import check_one_of, prefixed


@dataclass(frozen=True)
class _Override:
    """Values for the runs that have others."""

    when: dict[str, Any]
    set: dict[str, Any]


@dataclass(frozen=True)
class _Config:
    """A YAML of defaults."""

    base: dict[str, Any] | None = None
    overrides: list[_Override] | None = None


def layered(path: Path, values: dict[str, Any], on_line: set[str], flags: list[str]) -> dict[str, Any]:
    """Defaults that the YAML gives for these values: its base, then every override that matches."""
    written = yaml_object(path)
    with prefixed(str(path)):
        for key in written:
            check_one_of("key", key, ("base", "overrides"))
    config = typed(_Config, written, path)
    defaults = dict(config.base or {})
    _known(defaults, flags, path)
    for override in config.overrides or []:
        _known({**override.when, **override.set}, flags, path)
        current = {**values, **{k: v for k, v in defaults.items() if k not in on_line}}
        if all(current[key] in (want if isinstance(want, list) else [want]) for key, want in override.when.items()):
            defaults.update(override.set)
    others = {key for key, owner in OF.items() if owner in on_line and values[owner] != defaults.get(owner)}
    return {key: value for key, value in defaults.items() if key not in others}


def _known(keys: dict[str, Any], flags: list[str], path: Path) -> None:
    with prefixed(str(path)):
        for key in keys:
            check_one_of("key", key, flags, otherwise="see --help")
