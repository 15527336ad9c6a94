"""Settings in YAML, read as names and plain values: each name once and as it is written, of bounded size and depth."""

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from glue_sparse.writing.fields import DEEPEST, text_of, typed

_MOST = 100_000
"""Values of a file, what aliases stand for counted each time."""
_TEXT = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"


def yaml_object(path: Path) -> dict[str, Any]:
    """What a YAML maps names to; not to be changed, since later readers of the same text get it too.

    Names are texts as they are written: `1`, `no` and `1.0` too.

    Raises:
        ValueError: it cannot be read, is no mapping, has a name twice, a tag, a number that is not finite, or too much.
    """
    return object_of(yaml_text(path), path)


def yaml_text(path: Path) -> str:
    """What is written in a YAML; ValueError where it cannot be read."""
    try:
        return text_of(path)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or 'it is no file'}") from error


def object_of(text: str, path: Path) -> dict[str, Any]:
    """As `yaml_object`, for the text of a file."""
    try:
        found = _parsed(text)
    except yaml.MarkedYAMLError as error:
        what = ", ".join(part for part in (error.context, error.problem) if part)
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"cannot read {path}: {what}{line}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ValueError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    return typed(dict[str, Any], found, path)


@lru_cache(maxsize=8)
def _parsed(text: str) -> Any:
    """The runs of a grid read the same text many times."""
    return yaml.load(text, _Loader)  # noqa: S506  # it is a safe loader


def _refused(what: str, where: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=what, problem_mark=where.start_mark)


class _Loader(yaml.SafeLoader):
    """A safe loader of names and plain values."""

    def __init__(self, text: str):
        super().__init__(text)
        self._count, self._depth = 0, 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """One value; refuses tags, and counts values and levels."""
        event, before = self.peek_event(), self._count
        if getattr(event, "tag", None) not in (None, "!"):
            raise _refused(f"the tag {event.tag}, which plain values do not need, stands", event)
        self._depth += 1
        if self._depth > DEEPEST:
            raise _refused("it is nested too deeply", event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._sizes:
                raise _refused(f"*{event.anchor} is a part of itself", event)
            self._count += self._sizes[id(node)]
        else:
            self._count += 1
            self._sizes[id(node)] = self._count - before
        if self._count > _MOST:
            raise _refused(f"more than {_MOST:,} values, with what aliases repeat, are there", event)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping; refuses names that are no texts, or are there twice."""
        node, names = super().compose_mapping_node(anchor), set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refused("a name is no text", key)
            if key.value in names:
                raise _refused(f"{key.value!r} is there twice, again", key)
            names.add(key.value)
            if key.tag != _MERGE:
                key.tag = _TEXT
        return node

    def construct_yaml_float(self, node: Any) -> float:
        """A finite number."""
        number = super().construct_yaml_float(node)
        if not math.isfinite(number):
            raise _refused(f"{node.value} is no number to work with", node)
        return number


_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)
