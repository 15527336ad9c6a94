"""Rows of conversations and answers: which format a file is in, and one sentence for what cannot be read."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import decoders
import sft_rows
from glue_sparse.tasks.language import rows

WRONG: list[tuple[Any, str]] = [
    ({"question": "a", "answer": "b"}, "some.jsonl has none of the columns that are read"),
    ({"prompt": "a"}, "has none of the columns that are read, `prompt` and `completion`, `messages`, or 'text'"),
    ({"messages": "hello"}, "line 1: column 'messages' is a text, not a list of messages"),
    ({"messages": []}, "line 1: column 'messages' has no messages"),
    ({"messages": [{"content": "a"}]}, "column 'messages' has a message, number 1, without a role"),
    ({"messages": [{"role": "user"}]}, "has a message, number 1, without content"),
    ({"messages": [{"role": "user", "content": 5}]}, "whose content is 5, not a text"),
    ({"messages": [{"role": "user", "content": "a\0"}]}, "has a message, number 1, that holds a NUL character"),
    ({"prompt": "a", "completion": " "}, "line 1: column 'completion' is empty"),
    ({"prompt": [{"role": "user", "content": "a"}], "completion": "b"}, "one is a text and the other a list"),
    ({"text": ["a"]}, "line 1: column 'text' holds ['a'], which is no text"),
    ({"text": 5}, "line 1: column 'text' holds"),
    ([1], "line 1: not a JSON object"),
]


@pytest.mark.parametrize("kind", sft_rows.FORMATS)
def test_rows_are_read_as_they_were_written(kind: str, tmp_path: Path):
    told = sft_rows.FORMATS[kind]
    found = rows.read(sft_rows.write(tmp_path / "some.jsonl", told), "text")
    assert [*found.rows] == told
    assert found.name == "some.jsonl" and found.place(1) == f"{tmp_path / 'some.jsonl'}, line 2"
    assert found.only([3]).rows == [told[3]] and found.only([3]).place(0).endswith("line 4")


def test_numbers_of_tools_are_numbers_and_not_words(tmp_path: Path):
    told = {**decoders.MESSAGES[0], "tools": [{"type": "function", "limit": 5, "share": 0.5, "deep": [{"n": 1}]}]}
    (row,) = rows.read(sft_rows.write(tmp_path / "some.jsonl", [told]), "text").rows
    assert row["tools"] == told["tools"] and type(row["tools"][0]["limit"]) is int


def test_parquet_gives_what_json_lines_give(tmp_path: Path):
    told = [{"messages": [{"role": "user", "content": "a"}, {"role": "tool", "content": "b", "name": "look"}]}]
    pq.write_table(pa.Table.from_pylist(told), tmp_path / "some.parquet")  # which gives all messages a name
    assert [*rows.read(tmp_path / "some.parquet", "text").rows] == told


def test_of_several_formats_the_one_of_trl_is_taken(tmp_path: Path):
    both = {**sft_rows.PROMPTS[0], **decoders.MESSAGES[0], **sft_rows.TEXTS[0]}
    assert rows.format_of(both, "text", "") == ("prompt", "completion")
    assert rows.format_of({**both, "completion": None}, "text", "") == ("messages",)
    assert rows.format_of({"body": "a", "text": "b"}, "body", "") == ("body",)


@pytest.mark.parametrize(("row", "said"), WRONG)
def test_what_cannot_be_read_is_said_in_one_sentence(row: Any, said: str, tmp_path: Path):
    (tmp_path / "some.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError) as error:
        rows.read(tmp_path / "some.jsonl", "text")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_row_of_another_format_is_told_with_its_line(tmp_path: Path):
    path = sft_rows.write(tmp_path / "some.jsonl", [sft_rows.PROMPTS[0], {"prompt": "a"}])
    with pytest.raises(ValueError, match="line 2, has no column 'completion'; found: prompt"):
        rows.read(path, "text")
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(ValueError, match="none.jsonl has no rows"):
        rows.read(tmp_path / "none.jsonl", "text")
