"""The user's own files in every format, and every way they can be wrong."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.labels import classes_of, word_of
from glue_sparse.tasks.registry import load_task
from glue_sparse.tasks.tables import read

ROWS = [("a good film", "good"), ("a bad film", "bad"), ("a great\nbook, yes", "good")]


def write(path: Path, rows: list[tuple[Any, Any]]) -> Path:
    """Rows of (text, label) in the format of the file's ending."""
    frame = pd.DataFrame(rows, columns=pd.Index(["text", "label"]))
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".tsv":
        lines = ["text\tlabel", *(f"{text}\t{label}".replace("\n", " ") for text, label in rows)]
        path.write_text("\n".join(lines) + "\n")
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        path.write_text("".join(json.dumps({"text": t, "label": x}) + "\n" for t, x in rows))
    return path


def load(model: str, train: Path, validation: Path, test: Path | None = None, do_predict=False, **options: Any) -> Task:
    task = TaskArguments(
        task="file",
        train_file=str(train),
        validation_file=str(validation),
        test_file=None if test is None else str(test),
        **options,
    )
    return load_task(task, ModelArguments(model=model), seed=0, do_predict=do_predict)


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_every_format(ending: str, tiny_bert: str, tmp_path: Path):
    train = write(tmp_path / f"films.{ending}", ROWS)
    task = load(tiny_bert, train, write(tmp_path / f"held_out.{ending}", ROWS[:2]))
    assert task.labels == ("bad", "good")
    assert task.train["label"] == [1, 0, 1]
    assert task.evals["validation"]["label"] == [1, 0]
    assert (task.title, task.main_metric) == ("films", "accuracy")
    assert task.source["files"] == {"train": f"films.{ending}", "validation": f"held_out.{ending}"}
    assert task.source["rows"] == {"train": 3, "validation": 2}
    assert str(tmp_path) not in str(task.source)


def test_pairs_and_other_column_names(tiny_bert: str, tmp_path: Path):
    path = tmp_path / "pairs.csv"
    path.write_text("label,index,text\nthe cat,the dog,1\nthe man,the bird,0\n")
    task = load(tiny_bert, path, path, text_columns=["label", "index"], label_column="text")
    assert task.labels == ("0", "1")
    assert task.tokenizer is not None
    decoded = task.tokenizer.decode(task.train[0]["input_ids"])
    assert decoded == "[CLS] the cat [SEP] the dog [SEP]"


def test_quotes_are_ordinary_in_tsv_and_special_in_csv(tmp_path: Path):
    (tmp_path / "a.tsv").write_text('text\tlabel\n"the cat\t1\nthe dog\t0\n')
    (tmp_path / "a.csv").write_text('\ufefftext,label\n"the ""cat"",\nyes",1\nthe dog,0\n', encoding="utf-8")
    assert read(tmp_path / "a.tsv", ["text"]).columns["text"] == ['"the cat', "the dog"]
    table = read(tmp_path / "a.csv", ["text"])
    assert table.columns["text"] == ['the "cat",\nyes', "the dog"]
    assert table.lines == [2, 4]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["b", "a", "b"], ("a", "b")),
        (["10", "9", "1"], ("1", "9", "10")),
        ([10, 9, 9.0], ("9", "10")),
        ([True, False], ("false", "true")),
        (["1.5", "x"], ("1.5", "x")),
        (["nan", "inf"], ("inf", "nan")),
        (["9007199254740992", "9007199254740993", "12"], ("12", "9007199254740992", "9007199254740993")),
        ([2**53, 2**53 + 1, 1.0], ("1", str(2**53), str(2**53 + 1))),
        ([Decimal("9007199254740993.0"), 2**53], (str(2**53), str(2**53 + 1))),
        (["1" * 30, "1" * 29 + "2", "1.0"], ("1", "1" * 30, "1" * 29 + "2")),
        (["007", "7", "7.0"], ("007", "7")),
        (["1e5", "100000"], ("100000", "1e5")),
        (["1_1", "11", "2"], ("11", "1_1", "2")),
        (["-1", "+1"], ("-1", "1")),
        (["caf\u00e9", "cafe\u0301"], ("caf\u00e9",)),
    ],
)
def test_label_names(labels: list[Any], names: tuple[str, ...]):
    assert classes_of(map(word_of, labels)) == names


def test_regression(tiny_bert: str, tmp_path: Path):
    train = write(tmp_path / "train.csv", [("a cat", 0.5), ("a dog", 2.0), ("a bird", -1)])
    test = write(tmp_path / "test.csv", [("a fish", "?"), ("a man", "?")])
    task = load(tiny_bert, train, train, test, do_predict=True)
    assert task.labels == ()
    assert task.train["label"] == [0.5, 2.0, -1.0]
    assert task.main_metric == "combined_score"
    assert task.write_predictions is not None
    path = task.write_predictions("test", np.array([[-7.25], [1.0]]), tmp_path)
    assert path.read_text() == "index\tprediction\n0\t-7.250\n1\t1.000\n"


def test_predictions_are_label_names(tiny_bert: str, tmp_path: Path):
    train = write(tmp_path / "train.tsv", ROWS)
    test = tmp_path / "test.tsv"
    test.write_text("text\na cat\na dog\n")
    task = load(tiny_bert, train, train, test, do_predict=True)
    assert task.write_predictions is not None
    path = task.write_predictions("test", np.array([[0.0, 1.0], [1.0, 0.0]]), tmp_path)
    assert path == tmp_path / "predictions_test.tsv"
    assert path.read_text() == "index\tprediction\n0\tgood\n1\tbad\n"


@pytest.mark.parametrize("label", ["a\tb", "a\nb"])
def test_labels_that_no_line_can_hold(label: str, tiny_bert: str, tmp_path: Path):
    train = tmp_path / "a.jsonl"
    train.write_text("".join(json.dumps({"text": "a cat", "label": each}) + "\n" for each in (label, "c")))
    with pytest.raises(ValueError, match="holds a tab or a line break: rename it, or leave `do_predict` out"):
        load(tiny_bert, train, train, train, do_predict=True)
    assert load(tiny_bert, train, train).labels == (label, "c")


def test_bytes_are_no_label_and_damage_is_told(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", "b"], "label": [b"x", b"y"]}), path)
    with pytest.raises(ValueError, match="row 1: the label in column 'label' is neither text nor a number"):
        load("no-model-is-looked-for", path, path)
    content = path.read_bytes()
    path.write_bytes(content[:20] + b"\xff" * 30 + content[50:])
    with pytest.raises(ValueError, match="a.parquet is (not a parquet file|not UTF-8)"):
        load("no-model-is-looked-for", path, path)


def test_nothing_to_predict(tmp_path: Path):
    train = write(tmp_path / "train.csv", ROWS)
    with pytest.raises(ValueError, match="give `test_file`"):
        load("no-model-is-looked-for", train, train, do_predict=True)


def test_validation_label_not_in_training(tmp_path: Path):
    train = write(tmp_path / "train.csv", ROWS)
    other = write(tmp_path / "other.csv", [("a\ncat", "good"), ("a dog", "so so")])
    expected = "other.csv, line 4: label 'so so' is not one of the training labels bad, good"
    with pytest.raises(ValueError, match=expected):
        load("no-model-is-looked-for", train, other)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", None, "a.csv does not exist"),
        ("a.xlsx", "x", "unknown ending; .csv, .tsv, .jsonl, .json, .parquet can be read"),
        ("a.csv", "", "a.csv has no rows"),
        ("a.csv", "text,label\n", "a.csv has no rows"),
        ("a.jsonl", "\n", "a.jsonl has no rows"),
        ("a.csv", "sentence,label\na,b\n", "no column 'text'; found: sentence, label"),
        ("a.csv", "text,label\na,b,c\n", "line 2: 3 fields where 2 are expected"),
        ("a.csv", 'text,label\na,b\n"c,b\n', "not well-formed csv"),
        ("a.csv", "text,label\na,x\n,y\n", "line 3: no text in column 'text'"),
        ("a.csv", "text,label\na,x\nb, \n", "line 3: no label in column 'label'"),
        ("a.csv", "text,label\na,x\nb,x\n", "a: every row of train has the label x: there"),
        ("a.tsv", "text\tlabel\na\tx\n\nb\n", "line 4: 1 fields where 2 are expected"),
        ("a.csv", "text,label\na,1.5\nb,2\n".encode("utf-16"), "a.csv is not UTF-8 text"),
        ("a.json", '[{"text": "a", "label": "b"}]', "line 1: not a JSON object"),
        ("a.jsonl", '{"text": "a", "label": 1}\nx\n', "line 2: not a JSON object"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "a"}\n', "line 2, has no column 'label'; fo"),
        ("a.jsonl", '{"text": null, "label": 1}\n{"text": "b", "label": 2}\n', "line 1: no text in"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": null}\n', "line 2: no label in"),
        ("a.parquet", "text", "a.parquet is not a parquet file"),
        ("a.csv", "text,label,label\na,x,y\n", "a.csv has more than one column 'label': rename all but one"),
        ("a.tsv", "text\tlabel\ttext\na\tx\tb\n", "a.tsv has more than one column 'text'"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "a", "label": 1, "label": 2}\n', "line 2, has more than one"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "\\ud83d", "label": 2}\n', "line 2: column .* holds half a"),
        (
            "a.jsonl",
            '{"text": "a", "label": "\\ud83d"}\n{"text": "b", "label": "c"}\n',
            "line 1: column 'label' holds half a",
        ),
        ("a.jsonl", '{"text": "a", "label": ["x"]}\n{"text": "b", "label": ["y"]}\n', "line 1: the label in column"),
        ("a.jsonl", '{"text": 5, "label": 1}\n{"text": "b", "label": 2}\n', "line 1: column .* holds a number, "),
        ("a.jsonl", '{"text": 0.5, "label": 1}\n{"text": "b", "label": 2}\n', "holds a number, not text: write it in"),
        ("a.jsonl", '{"text": ["b"], "label": 1}\n{"text": "b", "label": 2}\n', "line 1: column 'text' holds a list"),
        ("a.jsonl", '{"text": true, "label": 1}\n{"text": "b", "label": 2}\n', "column 'text' holds true or false"),
        ("a.csv", "text,label\na,0.5\nb,inf\n", "line 3: no label in column 'label', which says 'inf'"),
        (
            "a.jsonl",
            '{"text": "a", "label": 1e400}\n{"text": "b", "label": 2.5}\n',
            "line 1: label '1e400' is larger than",
        ),
        ("a.jsonl", "[" * 100_000, "a.jsonl, line 1: not a JSON object"),
        ("a.jsonl", '{"text": "a", "text": "b", "label": 1}\n', "a.jsonl, line 1, has more than one column 'text'"),
        ("a.tsv", "text\tlabel\na\tx\nb\0\ty\n", "a.tsv, line 3: column 'text' holds a NUL character"),
        ("a.csv", b"text,label\na,x\n\xff,y\n", "a.csv is not UTF-8 text: line 3 has other bytes"),
        ("a.csv", "text,label\na,-\nb,-\n", "line 2: no label in column 'label', which says '-' .2 of 2 rows.: give"),
    ],
)
def test_malformed_files(name: str, content: str | bytes | None, message: str, tmp_path: Path):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as raised:
        load("no-model-is-looked-for", path, path)
    assert "\n" not in str(raised.value)


def test_a_column_that_nobody_uses_may_occur_twice(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("text,label,note,note\na,x,1,2\nb,y,1,2\n")
    assert read(path, ["text", "label"]).columns == {"text": ["a", "b"], "label": ["x", "y"]}


def test_parquet_columns_of_one_name(tmp_path: Path):
    path = tmp_path / "a.parquet"
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array([1]), pa.array([2])], names=["text", "label", "label"])
    pq.write_table(table, path)
    with pytest.raises(ValueError, match="more than one column 'label'"):
        read(path, ["text", "label"])


def test_a_long_cell(tmp_path: Path):
    path = write(tmp_path / "a.csv", [("word " * 40_000, "x"), ("a", "y")])
    assert len(read(path, ["text"]).columns["text"][0]) == 200_000


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_rows_without_a_label_are_refused_or_left_out(ending: str, tiny_bert: str, tmp_path: Path, caplog):
    rows = [("a cat", "yes"), ("a dog", "-"), ("a bird", "no"), ("a fish", "NA")]
    path = write(tmp_path / f"a.{ending}", rows)
    with pytest.raises(ValueError, match="no label in column 'label', which says '-' .2 of 4 rows.: give them one, or"):
        load(tiny_bert, path, path)
    task = load(tiny_bert, path, path, missing_labels="drop")
    assert task.labels == ("no", "yes") and task.train["label"] == task.evals["validation"]["label"] == [1, 0]
    assert task.source["without_label"] == {"train": 2, "validation": 2}
    told = [record.message for record in caplog.records if "left out" in record.message]
    assert len(told) == 2 and "2 of 4 rows are left out, since they have no label in column 'label'" in told[0]


@pytest.mark.parametrize("word", ["-", "nan", "NA", "null", "None", "", " ", "inf", "-INF", "-nan"])
def test_numbers_without_a_label_stay_numbers(word: str, tiny_bert: str, tmp_path: Path):
    path = write(tmp_path / "a.csv", [("a cat", "0.5"), ("a dog", word), ("a bird", "-1")])
    with pytest.raises(
        ValueError, match="line 3: no label in column 'label'.*or leave them out by `missing_labels` drop"
    ):
        load("no-model-is-looked-for", path, path)
    task = load(tiny_bert, path, path, missing_labels="drop")
    assert task.labels == () and task.train["label"] == [0.5, -1.0] and task.source["problem"] == "regression"


def test_minus_is_a_label_beside_plus_and_where_another_mark_is_named(tiny_bert: str, tmp_path: Path):
    path = write(tmp_path / "a.csv", [("a cat", "+"), ("a dog", "-"), ("a bird", "0")])
    assert load(tiny_bert, path, path).labels == ("+", "-", "0")
    path = write(tmp_path / "b.csv", [("a cat", "None"), ("a dog", "-"), ("a bird", "?")])
    assert load(tiny_bert, path, path, no_label="?", missing_labels="drop").labels == ("-", "None")
    assert load(tiny_bert, path, path, no_label="").labels == ("-", "?", "None")


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_an_empty_cell_is_no_label(ending: str, tiny_bert: str, tmp_path: Path):
    path = write(tmp_path / f"a.{ending}", [("a cat", "x"), ("a dog", None), ("a bird", "y")])
    with pytest.raises(ValueError, match="line [23]: no label in column 'label' .1 of 3 rows.: give"):
        load(tiny_bert, path, path, no_label="?")
    assert load(tiny_bert, path, path, missing_labels="drop").train["label"] == [0, 1]


def test_rows_of_a_parquet_file_are_named(tmp_path: Path):
    path = write(tmp_path / "a.parquet", [("a", 1.5), (None, 2.0)])
    with pytest.raises(ValueError, match="row 2: no text"):
        load("no-model-is-looked-for", path, path)


@pytest.mark.parametrize("columns", [[], ["a", "b", "c"], ["text", "label"], ["text", "text"]])
def test_text_columns(columns: list[str], tmp_path: Path):
    path = write(tmp_path / "a.csv", ROWS)
    with pytest.raises(ValueError, match="`text_columns` must be one or two"):
        load("no-model-is-looked-for", path, path, text_columns=columns)
