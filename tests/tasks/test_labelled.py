"""Whether labels are classes or numbers: what one odd cell must not decide."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glue_sparse.tasks.labelled import Kind, Problem, settle, targets, words_of
from glue_sparse.tasks.labels import classes_of, no_label, word_of
from glue_sparse.tasks.tables import Number, Table, read


def column(*labels: Any) -> Table:
    return Table(Path("a.csv"), {"label": [*labels]}, [*range(2, 2 + len(labels))])


@pytest.mark.parametrize(
    ("labels", "told", "expected", "why"),
    [
        (("b", "a"), None, ("a", "b"), None),
        (("1", "0"), None, ("0", "1"), "2 classes (0, 1), since all numbers in it are whole"),
        (("1", "0"), "classification", ("0", "1"), None),
        (("1", "0"), "regression", (), None),
        (("1", "0", "x"), None, ("0", "1", "x"), "3 classes (0, 1, x), since line 4 has 'x'"),
        (("1", "0.5", "1e-05"), None, (), "numbers (regression), since line 3 has '0.5'"),
        (("1", "0.5"), "classification", ("0.5", "1"), None),
        (("1.5", "x"), "classification", ("1.5", "x"), None),
        (("0071", "71", "1e2", "100"), None, ("71", "0071", "100", "1e2"), "all numbers in it are whole"),
        ((Number("1e2"), Number("100"), Number("1.0"), 1), None, ("1", "100", "1e2"), "all numbers"),
        ((True, False, "true"), None, ("false", "true"), None),
        (tuple(map(str, range(100))), None, tuple(map(str, range(100))), "7, 8, 9, 10, 11"),
    ],
)
def test_what_labels_are(labels: tuple[Any, ...], told: Kind | None, expected: Any, why: str | None, caplog):
    problem = settle(column(*labels), "label", told)
    assert sorted(problem.classes) == sorted(expected) and (problem.kind == "regression") == (not expected)
    assert [why in record.message for record in caplog.records if why] == ([True] if why else [])
    assert len(caplog.records) == (why is not None) and all(len(one.message) < 300 for one in caplog.records)


@pytest.mark.parametrize(
    ("labels", "told", "message"),
    [
        (("0.5", "x"), None, "^a.csv, line 3: label 'x' is no number, but line 2 has '0.5': correct it, or say by"),
        (("0.5", "1,5"), None, "line 3: label '1,5' is no number"),
        (("0.5", "1e39"), None, "line 3: label '1e39' is larger than what float32"),
        (("0.5", "9" * 400), None, "line 3: label '9+...? is larger than what float32"),
        (("0.5", "1e999999999"), None, "line 3: label '1e999999999' is larger than what float32"),
        (("1", "x"), "regression", "line 3: label 'x' is no finite number, and a regression needs one"),
        (("1", "inf"), "regression", "line 3: label 'inf' is no finite number"),
        (([1], "x"), None, "line 2: the label in column 'label' is neither text nor a number"),
        (("x", "\ufeffx"), None, "line 3: the label in column 'label' holds a byte-order mark"),
    ],
)  # fmt: skip
def test_what_labels_cannot_be(labels: tuple[Any, ...], told: Kind | None, message: str):
    with pytest.raises(ValueError, match=message) as raised:
        settle(column(*labels), "label", told)
    assert len(str(raised.value)) <= 300 and "\n" not in str(raised.value)


def test_a_label_that_is_new_is_told_with_few_of_many_classes():
    known = Problem("classification", classes_of(map(str, range(1000))))
    with pytest.raises(
        ValueError, match="line 2: label 'x{59}... is not one of the training labels 0, 1, .* more$"
    ) as raised:
        targets(column("x" * 1000), "label", known)
    assert len(str(raised.value)) <= 300


@pytest.mark.parametrize("word", ["", "nan", "NaN", "-inf", "Infinity", "NA", "N/A", "null", "None", "-", "<NA>"])
def test_what_says_that_there_is_no_label(word: str):
    assert no_label(None, ["x"])(word)
    assert no_label("?", ["x"])(word) == (word == "")


@pytest.mark.parametrize("word", ["none", "0", "-1", "na", "?", "+", "nano", "information"])
def test_what_is_a_label(word: str):
    assert not no_label(None, ["x"])(word)
    assert word_of(None) == word_of(float("nan")) == word_of(" ") == ""


def test_a_mark_that_is_a_number_is_found_in_a_column_of_floats():
    assert no_label("-1", ["x"])("-1.0") and no_label("-1.0", ["x"])("-1") and no_label(" ? ", ["x"])("?")
    assert not no_label("-1", ["x"])("-1.5") and not no_label("01", ["x"])("1")


def test_blank_lines_before_a_header_are_passed_over(tmp_path: Path):
    for ending, mark in ((".csv", ","), (".tsv", "\t")):
        path = tmp_path / f"a{ending}"
        path.write_text(f"\n\ntext{mark}label\na{mark}x\n")
        table = read(path, ["text", "label"])
        assert (table.columns["label"], table.lines) == (["x"], [4])


def test_a_text_of_a_parquet_that_is_not_utf8(tmp_path: Path):
    offsets = pa.py_buffer(b"".join(number.to_bytes(4, "little") for number in (0, 2)))
    text = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff\xfe")])
    pq.write_table(pa.table({"label": text}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="a.parquet holds a text that is not UTF-8: mend it"):
        read(tmp_path / "a.parquet", ["label"])


def test_json_numbers_stay_as_written_and_nan_is_null(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    labels = ("1e2", "100", "1.50", "9" * 5000, "NaN", "null", "true")
    path.write_text("".join(f'{{"label": {label}}}\n' for label in labels))
    assert words_of(read(path, ["label"]), "label") == ["1e2", "100", "1.50", "9" * 5000, "", "", "true"]
