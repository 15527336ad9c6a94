"""What others wrote: right types are read, and every wrong one is one sentence that says where."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from glue_sparse.writing.fields import json_object, json_value, text_of, typed


@dataclass(frozen=True)
class Inner:
    size: int
    share: float = 0.5


@dataclass(frozen=True)
class Facts:
    name: str
    kind: Literal["zero", "frozen"]
    inner: Inner
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    label: str | int | None = None
    extra: list[Any] = field(default_factory=list)


RIGHT: dict[str, Any] = {"name": "a", "kind": "zero", "inner": {"size": 3, "share": 1}, "shapes": {"w": [2, 3]}}


def test_right_values_are_read_as_what_they_are() -> None:
    facts = typed(Facts, RIGHT, "the file")
    assert facts == Facts("a", "zero", Inner(3, 1), {"w": (2, 3)})
    assert typed(Facts, {**RIGHT, "label": 4}, "the file").label == 4


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"name": 5}, "`name` of the file must be a text, not 5"),
        ({"name": None}, "`name` of the file must be a text, not null"),
        ({"kind": "Zero"}, "`kind` of the file must be 'zero' or 'frozen', not 'Zero'"),
        ({"inner": []}, "`inner` of the file must be an object, not \\[\\]"),
        ({"inner": {}}, "the file lacks `inner.size`"),
        ({"inner": {"size": True}}, "`inner.size` of the file must be an integer, not True"),
        ({"inner": {"size": 1, "share": float("nan")}}, "`inner.share` of the file must be a finite number"),
        ({"shapes": {"w": [2, "x"]}}, "`shapes.w\\[1\\]` of the file must be an integer, not 'x'"),
        ({"shapes": {"w": 3}}, "`shapes.w` of the file must be a list, not 3"),
        ({"label": [1]}, "`label` of the file must be a text or an integer, not \\[1\\]"),
        ({"extra": "x" * 5000}, "`extra` of the file must be a list, not 'x{79}\\.\\.\\.$"),
        ({"other": 1}, "the file has a field 'other' in it that is not known"),
    ],
)
def test_wrong_values_are_one_sentence(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        typed(Facts, {**RIGHT, **changed}, "the file")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 100_000,
        '{"a":' * 100_000,
        "[" * 200 + "]" * 200,
        "NaN",
        "[Infinity]",
        "[1e999]",
        "1" * 5000,
        b"\xff\xfe",
        '{"a": 1, "a": 1}',
        '[{"a": {"b": 1, "c": 2, "b": 3}}]',
    ],
)
def test_no_json_is_a_sentence(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"^x\.json is"):
        json_value(text, "x.json")


@pytest.mark.parametrize("text", ["null", "[]", "1", '"a"'])
def test_no_object_is_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"^x\.json must be an object"):
        json_object(text, "x.json")


def test_pipes_and_devices_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ValueError, match="is not a regular file"):
            text_of(path)
    with pytest.raises(OSError, match="is a folder"):
        text_of(tmp_path)
