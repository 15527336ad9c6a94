"""Files written whole or not at all."""

import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well, and goes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> Path:
    """Write a file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def json_text(value: Any, what: str, **options: Any) -> str:
    """A value as JSON, which has finite numbers alone.

    Args:
        what: the value in words, for the message.
        options: of `json.dumps`.
    Raises:
        ValueError: a number is NaN or infinite; the message says where it is.
    """
    if found := next(_not_finite(value, ""), None):
        where, number = found
        raise ValueError(f"`{where}` of {what} is {number}, which is no number to write down")
    return json.dumps(value, allow_nan=False, **options)


def _not_finite(value: Any, where: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, float) and not math.isfinite(value):
        yield where, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _not_finite(inner, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _not_finite(inner, f"{where}[{index}]")


def without_infinite(value: Any) -> Any:
    """The same dictionaries and lists with None for each number that is NaN or infinite."""
    if isinstance(value, dict):
        return {key: without_infinite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_infinite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
