"""Settings in YAML: each name once and as it is written, plain values, bounded size and depth."""

import os
from pathlib import Path

import pytest
import yaml

from glue_sparse.arguments.yaml_file import yaml_object

ROOT = Path(__file__).parents[2]
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 20)
)


def read(folder: Path, text: str) -> dict[str, object]:
    path = folder / "file.yaml"
    path.write_text(text)
    return yaml_object(path)


def test_all_our_files_read_as_before():
    paths = [*(ROOT / "src").rglob("*.yaml")]
    assert len(paths) > 10
    for path in paths:
        assert yaml_object(path) == yaml.safe_load(path.read_text())


def test_names_are_texts_as_they_are_written(tmp_path: Path):
    assert read(tmp_path, "1: a\nno: b\n1.0: c\n~: d\n'e': f") == {"1": "a", "no": "b", "1.0": "c", "~": "d", "e": "f"}
    assert read(tmp_path, "x: &x {a: 1, c: 4}\ny: {<<: *x, a: 2, b: 3}\nz: {<<: *x}") == {
        "x": {"a": 1, "c": 4}, "y": {"a": 2, "b": 3, "c": 4}, "z": {"a": 1, "c": 4}
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows: {a: 1, b: 2, a: 3}", "'a' is there twice, again in line 1"),
        ("1: a\n'1': b", "'1' is there twice, again in line 2"),
        ("a: [{b: {c: 1, c: 1}}]", "'c' is there twice"),
        ("? [a]\n: 1", "a name is no text in line 1"),
        ("a: .nan", ".nan is no number to work with in line 1"),
        ("a:\n- 1.0e+999", "1.0e+999 is no number to work with in line 2"),
        ("a: !!python/object/apply:os.getcwd []", "the tag tag:yaml.org,2002:python/object/apply:os.getcwd"),
        ("a: !!int ''", "the tag tag:yaml.org,2002:int"),
        ("a: " + "[" * 300 + "]" * 300, "it is nested too deeply"),
        ("a: " + "{a: " * 300, "it is nested too deeply"),
        ("&a [*a]", "*a is a part of itself"),
        (LAUGHS, "more than 100,000 values"),
        ("a: *b", "found undefined alias 'b'"),
        ("a: [", "cannot read"),
        ("a: 2020-13-45", "month must be in 1..12"),
        ("a: " + "9" * 5000, "cannot read"),
        ("---\na: 1\n---\na: 2", "expected a single document"),
        ("- a", "must be an object with texts as keys, not ['a']"),
        ("", "must be an object with texts as keys, not null"),
    ],
    ids=range(19),
)
def test_what_says_something_else_is_one_sentence(tmp_path: Path, text: str, message: str):
    with pytest.raises(ValueError) as error:
        read(tmp_path, text)
    assert message in str(error.value) and str(tmp_path / "file.yaml") in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "nothing"):
        with pytest.raises(ValueError, match=str(path)):
            yaml_object(path)
