"""Defaults in layers: what a YAML gives for every run, and for those that match a condition."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from glue_sparse.arguments.trainer_facts import OF
from glue_sparse.arguments.yaml_file import object_of, yaml_text
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


def layered(path: Path, values: dict[str, Any], on_line: set[str], flags: tuple[str, ...]) -> dict[str, Any]:
    """Defaults that the YAML gives for these values: its base, then every override that matches."""
    config = _config(path, yaml_text(path), flags)
    defaults = dict(config.base or {})
    for override in config.overrides or []:
        current = {**values, **{k: v for k, v in defaults.items() if k not in on_line}}
        if all(current[key] in (want if isinstance(want, list) else [want]) for key, want in override.when.items()):
            defaults.update(override.set)
    others = {key for key, owner in OF.items() if owner in on_line and values[owner] != defaults.get(owner)}
    return {key: value for key, value in defaults.items() if key not in others}


@lru_cache(maxsize=8)
def _config(path: Path, text: str, flags: tuple[str, ...]) -> _Config:
    """The YAML, checked; the runs of a grid ask for the same one many times."""
    written = object_of(text, path)
    with prefixed(str(path)):
        for key in written:
            check_one_of("key", key, ("base", "overrides"))
    config = typed(_Config, written, path)
    with prefixed(str(path)):
        for settings in (config.base or {}, *({**one.when, **one.set} for one in config.overrides or [])):
            for key in settings:
                check_one_of("key", key, flags, otherwise="see --help")
    return config
