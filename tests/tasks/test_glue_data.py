"""GLUE files with all their traps, every malformed input, and the server's prediction format."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict
from transformers import EvalPrediction

from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.tasks import glue
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.glue import GLUE
from glue_sparse.tasks.registry import load_task

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data" / "glue"

MNLI = "index\tpromptID\tsentence1\tsentence2"
STSB = "index\tgenre\tsentence1\tsentence2"
MRPC = "#1 ID\t#2 ID\t#1 String\t#2 String"


def three(row: str) -> list[str]:
    return [f"{i}\t{row}" for i in range(3)]


def files(labelled: list[str], test: list[str]) -> dict[str, list[str]]:
    return {"train": labelled, "dev": labelled, "test": test}


FILES: dict[str, dict[str, list[str]]] = {
    "cola": {
        "train": ["x\t1\t\tthe cat sleeps", "x\t0\t*\tcat the sleeps", 'x\t1\t\t"the dog'],
        "dev": ["x\t1\t\tNA", "x\t0\t*\tnull", "x\t1\t\ta dog"],
        "test": ["index\tsentence", *three("the cat")],
    },
    "mnli": {
        "train": [f"{MNLI}\tlabel1\tgold_label", *(f"0\tn/a\ta\tb\tx\t{x}" for x in GLUE["mnli"].labels)],
        "dev_matched": [f"{MNLI}\tgold_label", *(f"0\tn/a\ta\tb\t{x}" for x in GLUE["mnli"].labels)],
        "dev_mismatched": [f"{MNLI}\tgold_label", *three("n/a\ta\tb\tneutral")],
        "test_matched": [MNLI, "7\tn/a\ta\tb", "8\tn/a\ta\tb", "9\tn/a\ta\tb"],
        "test_mismatched": [MNLI, "17\tn/a\ta\tb", "18\tn/a\ta\tb", "19\tn/a\ta\tb"],
    },
    "mrpc": files(
        [f"\ufeffQuality\t{MRPC}", *(f"{x}\t5\t6\ta cat\ta dog" for x in "101")],
        [f"\ufeffindex\t{MRPC}", *three("5\t6\ta cat\ta dog")],
    ),
    "qnli": files(
        ["index\tquestion\tsentence\tlabel", *three("who ?\ta cat\tnot_entailment")[:2], "2\tx\ty\tentailment"],
        ["index\tquestion\tsentence", *three("who ?\ta cat")],
    ),
    "qqp": files(
        ["id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", *three("1\t2\twho ?\twhy ?\t1")[:2], "2\t1\t2\tx\ty\t0"],
        ["id\tquestion1\tquestion2", *three("who ?\twhy ?")],
    ),
    "rte": files(
        ["index\tsentence1\tsentence2\tlabel", *three("a cat\ta dog\tentailment")[:2], "2\ta\tb\tnot_entailment"],
        ["index\tsentence1\tsentence2", *three("a cat\ta dog")],
    ),
    "sst2": files(
        ["sentence\tlabel", "a good film \t1", "a bad film \t0", "\u2028great\x85 film\t1"],
        ["index\tsentence", *three("a film")],
    ),
    "stsb": files(
        [f"{STSB}\tscore", "0\tx\ta cat\ta dog\t5.000", "1\tx\ta\tb\t0.0", "2\tx\ta\tb\t2.25"],
        [STSB, *three("x\ta cat\ta dog")],
    ),
    "wnli": files(
        ["index\tsentence1\tsentence2\tlabel", *three("a cat\ta dog\t1")[:2], "2\ta\tb\t0"],
        ["sentence1\tsentence2", *["a cat\ta dog"] * 3],
    ),
}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    for name, contents in FILES.items():
        folder = tmp_path / GLUE[name].folder
        folder.mkdir()
        for file, lines in contents.items():
            (folder / f"{file}.tsv").write_bytes(("\n".join(lines) + "\n").encode())
    return tmp_path


def load(tiny_bert: str, name: str, data_dir: Path | None, do_predict: bool = False, **options: Any) -> Task:
    task = TaskArguments(task=name, data_dir=None if data_dir is None else str(data_dir), **options)
    return load_task(task, ModelArguments(model=tiny_bert), seed=0, do_predict=do_predict)


def texts(task: Task, rows: Any) -> list[str]:
    return [task.tokenizer.decode(row["input_ids"]) for row in rows]  # pyright: ignore


@pytest.mark.parametrize("name", GLUE)
def test_every_task_loads(name: str, tiny_bert: str, data_dir: Path):
    task = load(tiny_bert, name, data_dir)
    splits = ["validation_matched", "validation_mismatched"] if name == "mnli" else ["validation"]
    assert list(task.evals) == splits
    assert {len(task.train), *map(len, task.evals.values())} == {3}
    assert task.labels == GLUE[name].labels
    assert task.head == ("classifier.weight", "classifier.bias")
    assert task.title == f"{GLUE[name].folder} (subset)"
    assert task.source["kind"] == "data_dir"
    assert task.source["name"] == data_dir.name
    assert task.source["official_rows"]["train"] == GLUE[name].rows["train"]
    assert (task.tests, task.write_predictions) == ({}, None)
    batch = task.collate([task.train[i] for i in range(3)])
    logits = task.model(**batch).logits
    scores = task.metrics(EvalPrediction(logits.detach().numpy(), batch["labels"].numpy()))
    assert task.main_metric in scores


def test_labels_become_the_hubs_integers(tiny_bert: str, data_dir: Path):
    assert load(tiny_bert, "mnli", data_dir).train["label"] == [0, 1, 2]
    assert load(tiny_bert, "qnli", data_dir).train["label"] == [1, 1, 0]
    assert load(tiny_bert, "rte", data_dir).train["label"] == [0, 0, 1]
    assert load(tiny_bert, "cola", data_dir).train["label"] == [1, 0, 1]
    assert load(tiny_bert, "stsb", data_dir).train["label"] == [5.0, 0.0, 2.25]


def test_quotes_words_for_nothing_and_odd_line_breaks_are_ordinary_text(data_dir: Path):
    def read(name: str, file: str) -> list[str]:
        return glue._labelled_rows(data_dir / file, GLUE[name], {})["text"]

    assert read("cola", "CoLA/train.tsv")[2] == '"the dog'
    assert read("cola", "CoLA/dev.tsv")[:2] == ["NA", "null"]
    assert read("sst2", "SST-2/dev.tsv")[2] == "\u2028great\x85 film"


def test_the_folder_of_the_task_itself(tiny_bert: str, data_dir: Path):
    task = load(tiny_bert, "rte", data_dir / "RTE")
    assert len(task.train) == 3
    assert task.source["name"] == "RTE"


def test_pairs_are_cut_to_max_length(tiny_bert: str, data_dir: Path):
    long = "index\tsentence1\tsentence2\tlabel\n0\t" + "cat " * 90 + "\t" + "dog " * 90 + "\tentailment\n"
    (data_dir / "RTE" / "train.tsv").write_text(f"{long}1\tcat\tdog\tnot_entailment\n")
    assert [len(row) for row in load(tiny_bert, "rte", data_dir, max_length=20).train["input_ids"]] == [20, 5]
    with pytest.raises(ValueError, match="`max_length` must be from 8 to this model's 128 tokens"):
        load(tiny_bert, "rte", data_dir, max_length=129)


def test_broken_lines_of_qqp_are_left_out_and_counted(tiny_bert: str, data_dir: Path):
    path = data_dir / "QQP" / "train.tsv"
    path.write_text(path.read_text() + "9\t1\t2\twho\n is that ?\twhat ?\t1\n")
    task = load(tiny_bert, "qqp", data_dir)
    assert len(task.train) == 3
    assert task.source["broken_lines"] == {"train.tsv": 2}


RTE_HEADER = "index\tsentence1\tsentence2\tlabel\n"


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("rte", "RTE/train.tsv", None, "RTE/train.tsv does not exist; `data_dir` is the folder of RTE"),
        ("mnli", "MNLI/dev_mismatched.tsv", None, "dev_mismatched.tsv does not exist"),
        ("rte", "RTE/dev.tsv", "", "RTE/dev.tsv has no rows"),
        ("rte", "RTE/dev.tsv", RTE_HEADER, "RTE/dev.tsv has no rows"),
        ("rte", "RTE/dev.tsv", "index\tsentence1\tlabel\n0\ta\tb\n", "no column 'sentence2'; found: index, "),
        ("rte", "RTE/dev.tsv", RTE_HEADER + "0\ta\tb\n", "line 2: 3 fields where 4 are"),
        ("rte", "RTE/dev.tsv", RTE_HEADER + "0\ta\tb\tc\tentailment\n", "line 2: 5 fields where 4 are"),
        (
            "rte",
            "RTE/train.tsv",
            RTE_HEADER + "0\ta\tb\tentailment\n1\ta\tb\tmaybe\n",
            "line 3: label 'maybe' is not one of entailment, not_entailment",
        ),
        (
            "cola",
            "CoLA/train.tsv",
            "source\tlabel\tmark\tsentence\n",
            "line 1: label 'label' is not one of 0",
        ),
        ("mnli", "MNLI/train.tsv", MNLI + "\tgold_label\n0\tx\ta\tb\t-\n", "line 2: label '-' is not one"),
        ("stsb", "STS-B/dev.tsv", STSB + "\tscore\n0\tx\ta\tb\t5.1\n", "line 2: label '5.1' is not a num"),
        ("stsb", "STS-B/dev.tsv", STSB + "\tscore\n0\tx\ta\tb\tnan\n", "label 'nan' is not a number fr"),
        ("stsb", "STS-B/dev.tsv", STSB + "\tscore\n0\tx\ta\tb\tfive\n", "label 'five' is not a number"),
        ("rte", "RTE/dev.tsv", b"\xff\xfe0\x00", "RTE/dev.tsv is not UTF-8 text"),
    ],
)
def test_malformed_data(
    name: str, file: str, content: str | bytes | None, message: str, data_dir: Path, tiny_bert: str
):
    path = data_dir / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as raised:
        load("no-model-is-looked-for", name, data_dir)
    assert "\n" not in str(raised.value)


def test_missing_folder(tmp_path: Path):
    with pytest.raises(ValueError, match="RTE/train.tsv does not exist"):
        load("no-model-is-looked-for", "rte", tmp_path / "nowhere")


SERVER = {
    "cola": {"test": ("CoLA.tsv", ["0\t1", "1\t0", "2\t1"])},
    "mnli": {
        "test_matched": ("MNLI-m.tsv", ["7\tneutral", "8\tentailment", "9\tcontradiction"]),
        "test_mismatched": ("MNLI-mm.tsv", ["17\tneutral", "18\tentailment", "19\tcontradiction"]),
    },
    "mrpc": {"test": ("MRPC.tsv", ["0\t1", "1\t0", "2\t1"])},
    "qnli": {"test": ("QNLI.tsv", ["0\tnot_entailment", "1\tentailment", "2\tnot_entailment"])},
    "qqp": {"test": ("QQP.tsv", ["0\t1", "1\t0", "2\t1"])},
    "rte": {"test": ("RTE.tsv", ["0\tnot_entailment", "1\tentailment", "2\tnot_entailment"])},
    "sst2": {"test": ("SST-2.tsv", ["0\t1", "1\t0", "2\t1"])},
    "stsb": {"test": ("STS-B.tsv", ["0\t5.000", "1\t0.000", "2\t2.346"])},
    "wnli": {"test": ("WNLI.tsv", ["0\t1", "1\t0", "2\t1"])},
}
OUTPUTS = {
    0: np.array([[5.4], [-0.1], [2.3456]], dtype=np.float32),
    2: np.array([[0.0, 1.0], [1.0, 0.0], [-2.0, -1.0]]),
    3: np.array([[0.0, 2.0, 1.0], [1.0, 0.0, 0.0], [-2.0, -1.0, 0.0]]),
}


@pytest.mark.parametrize("name", GLUE)
def test_prediction_files_of_the_server(name: str, tiny_bert: str, data_dir: Path, tmp_path: Path):
    task = load(tiny_bert, name, data_dir, do_predict=True)
    assert set(task.tests) == set(SERVER[name])
    assert task.write_predictions is not None
    for split, (file, lines) in SERVER[name].items():
        assert "label" not in task.tests[split].column_names
        path = task.write_predictions(split, OUTPUTS[len(task.labels)], tmp_path / "answers")
        assert path == tmp_path / "answers" / file
        assert path.read_text() == "\n".join(["index\tprediction", *lines]) + "\n"


def test_predictions_must_match_the_rows(tiny_bert: str, data_dir: Path, tmp_path: Path):
    task = load(tiny_bert, "rte", data_dir, do_predict=True, max_predict_samples=2)
    assert len(task.tests["test"]) == 2
    assert task.write_predictions is not None
    with pytest.raises(ValueError, match="3 predictions do not fit the 2 rows of test"):
        task.write_predictions("test", OUTPUTS[2], tmp_path)


def test_a_missing_test_file_is_told_before_training(data_dir: Path):
    (data_dir / "RTE" / "test.tsv").unlink()
    with pytest.raises(ValueError, match="test.tsv does not exist"):
        load("no-model-is-looked-for", "rte", data_dir, do_predict=True)


def test_hub(tiny_bert: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def load_dataset(hub_id: str, name: str) -> DatasetDict:
        assert (hub_id, name) == ("nyu-mll/glue", "mnli")
        rows = {"premise": ["a cat"] * 3, "hypothesis": ["a dog"] * 3, "label": [0, 1, 2], "idx": [4, 5, 6]}
        data = Dataset.from_dict(rows).cast_column("label", ClassLabel(names=list(GLUE["mnli"].labels)))
        return DatasetDict(dict.fromkeys(GLUE["mnli"].rows, data))

    monkeypatch.setattr(glue, "load_dataset", load_dataset)
    task = load(tiny_bert, "mnli", None, do_predict=True)
    assert task.source["kind"] == "hub"
    assert task.source["name"] == "nyu-mll/glue"
    assert task.train["label"] == [0, 1, 2]
    assert texts(task, task.train)[0] == "[CLS] a cat [SEP] a dog [SEP]"
    assert task.write_predictions is not None
    lines = task.write_predictions("test_matched", OUTPUTS[3], tmp_path).read_text().splitlines()
    assert lines[1:] == ["4\tneutral", "5\tentailment", "6\tcontradiction"]


def test_hub_out_of_reach():
    with pytest.raises(ValueError, match="`data_dir` .*`task` tweets.*`task` file") as raised:
        load("no-model-is-looked-for", "rte", None)
    assert "\n" not in str(raised.value)


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data/glue is not here")
@pytest.mark.parametrize("name", GLUE)
def test_real_files(name: str):
    spec = GLUE[name]
    wanted = [split for split in spec.rows if not split.startswith("test")]
    splits, source = glue._from_folder(SHARED, spec, wanted)
    rows = {split: len(splits[split]) for split in wanted}
    subsets = {
        "mnli": {"train": 8_468, "validation_matched": 2_000, "validation_mismatched": 999},
        "qnli": {"train": 4_463, "validation": 1_000},
        "qqp": {"train": 7_600, "validation": 2_000},
    }
    assert rows == subsets.get(name, {split: spec.rows[split] for split in wanted})
    assert "broken_lines" not in source
