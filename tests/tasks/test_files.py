"""The user's own files in every format, and every way they can be wrong."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.files import label_names, read
from glue_sparse.tasks.registry import load_task

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
        ([True, False], ("False", "True")),
        (["1", "1.5", "2"], ()),
        ([0.5, 1.0], ()),
        (["1.5", "x"], ("1.5", "x")),
        (["nan", "inf"], ("inf", "nan")),
    ],
)
def test_label_names(labels: list[Any], names: tuple[str, ...]):
    assert label_names(labels) == names


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
        ("a.csv", "text,label\na,x\nb,x\n", "every row of .*a.csv has the label x"),
        ("a.tsv", "text\tlabel\na\tx\n\nb\n", "line 4: 1 fields where 2 are expected"),
        ("a.csv", "text,label\na,1.5\nb,2\n".encode("utf-16"), "a.csv is not UTF-8 text"),
        ("a.json", '[{"text": "a", "label": "b"}]', "line 1: not a JSON object"),
        ("a.jsonl", '{"text": "a", "label": 1}\nx\n', "line 2: not a JSON object"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "a"}\n', "line 2, has no column 'label'; fo"),
        ("a.jsonl", '{"text": null, "label": 1}\n{"text": "b", "label": 2}\n', "line 1: no text in"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": null}\n', "line 2: no label in"),
        ("a.parquet", "text", "a.parquet is not a parquet file"),
    ],
)
def test_malformed_files(name: str, content: str | bytes | None, message: str, tmp_path: Path):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as raised:
        load("no-model-is-looked-for", path, path)
    assert "\n" not in str(raised.value)


def test_rows_of_a_parquet_file_are_named(tmp_path: Path):
    path = write(tmp_path / "a.parquet", [("a", 1.5), (None, 2.0)])
    with pytest.raises(ValueError, match="row 2: no text"):
        load("no-model-is-looked-for", path, path)


@pytest.mark.parametrize("columns", [[], ["a", "b", "c"], ["text", "label"], ["text", "text"]])
def test_text_columns(columns: list[str], tmp_path: Path):
    path = write(tmp_path / "a.csv", ROWS)
    with pytest.raises(ValueError, match="text_columns must be one or two"):
        load("no-model-is-looked-for", path, path, text_columns=columns)
