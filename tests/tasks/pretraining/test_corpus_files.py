"""Files of text to pre-train on that are damaged, or both trained on and scored."""

from pathlib import Path
from typing import Any

import pytest

from glue_sparse.arguments.groups import TaskArguments
from glue_sparse.tasks.corpus import open_split

TEXT = "one\ntwo\n\nthree\nfour\n\n" * 4


def split(train: Path, **options: Any) -> Any:
    return open_split(TaskArguments(task="masked_lm", train_file=str(train), **options))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"and\0more", "a.txt, line 25 holds a NUL"), (b"x\n\xff", "a.txt is not UTF-8 text: line 26 has other bytes")],
)
def test_damaged_text(content: bytes, message: str, tmp_path: Path):
    (path := tmp_path / "a.txt").write_bytes(TEXT.encode() + content)
    with pytest.raises(ValueError, match=message):
        split(path)


def test_text_that_is_trained_on_and_scored_is_told(tmp_path: Path):
    (path := tmp_path / "a.txt").write_text(TEXT)
    (other := tmp_path / "b.txt").write_text(TEXT)
    (link := tmp_path / "c.txt").symlink_to(path)
    assert split(path, validation_file=str(path)).note == "validation text is trained on"
    assert split(tmp_path, validation_file=str(link)).note == "validation text is trained on"
    assert split(path, validation_file=str(other)).note == ""
