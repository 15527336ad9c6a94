"""What no file of data is, and what no text holds."""

import os
from pathlib import Path

import pytest

from glue_sparse.writing.characters import check_file, fault_of, utf8

PIPE = "is not a regular file, and data are read more than once: write them into one$"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pipe", PIPE),
        ("zero", PIPE),
        ("folder", "is a folder, and a file is needed$"),
        ("none", "none does not exist$"),
    ],
)
def test_no_file(name: str, message: str, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=message):
        check_file(tmp_path / name)


@pytest.mark.parametrize(("content", "line"), [(b"\xff", 1), (b"a\nb\nc\xe9\n", 3), ("a\nb".encode("utf-16"), 1)])
def test_the_line_of_other_bytes(content: bytes, line: int, tmp_path: Path):
    (path := tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match=f"a is not UTF-8 text: line {line} has other bytes$"), utf8(path):
        path.read_text(encoding="utf-8")


def test_faults_of_texts():
    assert [fault_of(text) is None for text in ("", "caf\u00e9 \U0001f600\ufeff", "a\0", "\ud83d")] == [1, 1, 0, 0]
