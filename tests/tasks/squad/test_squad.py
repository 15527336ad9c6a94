"""SQuAD as a task: its files and their errors, the hub, the Fisher of its models, and whole runs."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import DatasetDict
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    DistilBertConfig,
    DistilBertForQuestionAnswering,
    EvalPrediction,
    RobertaConfig,
    RobertaForQuestionAnswering,
)

from glue_sparse import SparseDiff
from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.cli.train import main
from glue_sparse.core.batches import example
from glue_sparse.core.params import head_names
from glue_sparse.models import loading as models
from glue_sparse.models import of_diff
from glue_sparse.records import results
from glue_sparse.scores.fisher import fisher
from glue_sparse.tasks import metrics
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.registry import load_task
from glue_sparse.tasks.squad import task as squad
from glue_sparse.tasks.squad.files import read
from metric_scripts import metric_script
from networks import TINY
from rare import rarely


def content(count: int, **changes: Any) -> dict[str, Any]:
    """A file's content: `count` questions whose answer is always the word fish; `changes` go into the last one."""
    paragraphs = []
    for i in range(count):
        context = " ".join(["the"] * (i % 7 + 1) + ["fish", "eats", "a", "bird", "."])
        answers = [{"text": "fish", "answer_start": context.index("fish")}]
        paragraphs.append({"context": context, "qas": [{"id": f"q{i}", "question": "who eats ?", "answers": answers}]})
    paragraphs[-1]["qas"][0].update(changes)
    return {"version": "1.1", "data": [{"title": "Fish", "paragraphs": paragraphs}]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data" / "SQuAD").mkdir(parents=True)
    for split, count in (("train", 48), ("dev", 6)):
        path = tmp_path / "data" / "SQuAD" / f"{split}-v1.1.json"
        path.write_text(json.dumps(content(count), indent=1))
    return tmp_path / "data"


def test_metrics_of_evaluate_get_answers_by_question(tiny_bert: str, folder: Path):
    """With the official formula in a script, the numbers are the official ones."""
    returns = ("squad([p['prediction_text'] for p, _ in pairs], [r['answers']['text'] for _, r in pairs]) | "
               "{'same': all(p['id'] == r['id'] for p, r in pairs)}")  # fmt: skip
    answers = 'datasets.Sequence({"text": datasets.Value("string"), "answer_start": datasets.Value("int32")})'
    kinds = ('{"id": datasets.Value("string"), "prediction_text": datasets.Value("string")}',
             f'{{"id": datasets.Value("string"), "answers": {answers}}}')  # fmt: skip
    script = metric_script(folder.parent / "own.py", returns, *kinds, "from glue_sparse.tasks.metrics import squad\n")
    task = load(tiny_bert, folder, metric=[script])
    width = max(map(len, task.evals["validation"]["input_ids"]))
    logits = np.random.default_rng(0).normal(size=(2, len(task.evals["validation"]), width))
    outputs: Any = (logits[0], logits[1])
    found = task.metrics(EvalPrediction(outputs, np.zeros(1)))
    assert task.main_metric == "f1" and found["f1"] > 0 and found["own_same"] == 1
    assert (found["own_f1"], found["own_exact_match"]) == (found["f1"], found["exact_match"])


def without(record: dict[str, Any], *keys: str | int) -> str:
    """The content as JSON, without the entry at the end of a path."""
    place: Any = record
    for key in keys[:-1]:
        place = place[key]
    del place[keys[-1]]
    return json.dumps(record)


WRONG = {"answers": [{"text": "fish", "answer_start": 5}]}
PARAGRAPHS = ("data", 0, "paragraphs")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "train-v1.1.json is empty"),
        (
            '{"data": [\n {"title": }]}',
            "train-v1.1.json is no JSON that can be read: Expecting value: line 2 column 12",
        ),
        (b"\xff\xfe0\x00", "is not UTF-8 text"),
        ('{"data": []}', "train-v1.1.json has no questions"),
        ("[]", "train-v1.1.json has no 'data'"),
        ('{"data": {}}', "'data' is not a list"),
        ('{"data": [1]}', "article 1 has no 'paragraphs'"),
        (without(content(3), *PARAGRAPHS, 1, "context"), "article 1, paragraph 2 has no 'context'"),
        (without(content(3), *PARAGRAPHS, 2, "qas"), "article 1, paragraph 3 has no 'qas'"),
        (without(content(3), *PARAGRAPHS, 2, "qas", 0, "id"), "paragraph 3, question 1 has no 'id'"),
        (without(content(3), *PARAGRAPHS, 1, "qas", 0, "answers"), r"question 1 \(id 'q1'\) has no 'answers'"),
        (json.dumps(content(2, answers=[{"text": "fish"}])), r"\(id 'q1'\) has no 'answer_start'"),
        (json.dumps(content(2, answers=[{"text": 3, "answer_start": 0}])), "'text' is not text"),
        (json.dumps(content(2, id="q0"), indent=1), "line 26: question 'q0' occurs a second time"),
        (json.dumps(content(2, answers=[], is_impossible=True)), "question 'q1' has no answer; .* not v2.0"),
        (json.dumps(content(2, question=" ")), "question 'q1' is empty"),
        (json.dumps(content(2, question="who\0")), "question 'q1' holds a NUL character"),
        (
            json.dumps(content(2)).replace('"context":', '"context": "", "context":'),
            "paragraph 1 has more than one 'con",
        ),
        (json.dumps(content(2)).replace('"id"', '"id": "q0", "id"'), "question 1 has more than one 'id': remove all"),
        (json.dumps(content(2, answers=[{"text": "h", "answer_start": True}])), "'answer_start' is not a whole number"),
        ("[" * 100_000, "train-v1.1.json is nested too deeply"),
        (json.dumps(content(2, answers=[{"text": "the", "answer_start": 10**400}])), "answer_start 10{59}.{3}, where"),
        (json.dumps(content(2, answers=[{"text": " ", "answer_start": 3}])), "'q1' has an empty answer"),
        (
            json.dumps(content(2, **WRONG), indent=1),
            "train-v1.1.json, line 26: question 'q1' has the answer 'fish' with answer_start 5, .* has 'he f'",
        ),
        (json.dumps(content(2, id="\u00fc\ud83d\ude00", **WRONG)), "line 1: question '\u00fc.*answer_start 5"),
        (json.dumps(content(2, answers=[{"text": "the", "answer_start": -1}])), "answer_start -1, where"),
    ],
)
def test_malformed_files(text: str | bytes, message: str, folder: Path):
    path = folder / "SQuAD" / "train-v1.1.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as raised:
        load("no-model-is-looked-for", folder)
    assert "\n" not in str(raised.value)


def test_the_line_is_that_of_the_id(folder: Path):
    path = folder / "SQuAD" / "dev-v1.1.json"
    path.write_text(json.dumps(content(4, id='q"\\\u00fc', **WRONG), indent=1, ensure_ascii=False))
    expected = 1 + next(i for i, line in enumerate(path.read_text().splitlines()) if '"q\\"' in line)
    with pytest.raises(ValueError, match=f"line {expected}: "):
        read(path)


def load(model: str, data_dir: Path | None, do_predict: bool = False, seed: int = 0, **options: Any) -> Task:
    settings = {"max_length": 64, "doc_stride": 16, **options}
    task = TaskArguments(task="squad", data_dir=None if data_dir is None else str(data_dir), **settings)
    return load_task(task, ModelArguments(model=model), seed, do_predict)


def test_the_task(tiny_bert: str, folder: Path, tmp_path: Path):
    task = load(tiny_bert, folder, do_predict=True, max_train_samples=30, max_eval_samples=2)
    assert task.title == "SQuAD (subset, 30 of 48 train rows, 2 of 6 validation rows)"
    assert task.head == ("qa_outputs.weight", "qa_outputs.bias") and task.main_metric == "f1"
    assert task.source["rows"] == {"train": 30, "validation": 2} and task.source["kind"] == "data_dir"
    inputs = {"input_ids", "token_type_ids", "attention_mask", "start_positions", "end_positions"}
    assert set(task.train.column_names) == set(task.evals["validation"].column_names) == inputs
    assert task.train["start_positions"] == task.train["end_positions"] and 0 not in task.train["start_positions"]
    batch = task.collate([task.evals["validation"][i] for i in range(2)])
    perfect = torch.nn.functional.one_hot(batch["start_positions"], 30).float().numpy()
    found = task.metrics(EvalPrediction((perfect, perfect), (None, None)))  # pyright: ignore[reportArgumentType]
    assert found == {"exact_match": 1.0, "f1": 1.0}
    none = np.full((2, 30), np.nan)
    assert task.metrics(EvalPrediction((none, none), (None, None)))["f1"] == 0  # pyright: ignore[reportArgumentType]
    assert task.write_predictions and task.tests.keys() == {"validation"}
    path = task.write_predictions("validation", (perfect, none), tmp_path / "out")  # pyright: ignore
    assert path == tmp_path / "out" / "predictions.json"
    assert json.loads(path.read_text()) == {"q0": "", "q1": ""}
    assert json.loads((tmp_path / "out" / "nbest_predictions.json").read_text()) == {"q0": [], "q1": []}
    heads = [load(tiny_bert, folder, seed=seed).model.get_parameter("qa_outputs.weight") for seed in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_the_base_has_its_name(tiny_bert: str, folder: Path):
    assert load(tiny_bert, folder, max_length=64, doc_stride=16).base_model == tiny_bert
    given = TaskArguments(task="squad", data_dir=str(folder), max_length=64, doc_stride=16)
    task = load_task(given, ModelArguments(model=tiny_bert, from_scratch=True), 7)
    again = models.load_question_answerer(task.base_model)
    assert task.base_model == f"{tiny_bert}@scratch7"
    assert all(torch.equal(p, q) for p, q in zip(task.model.parameters(), again.parameters(), strict=True))


def test_predictions_are_written_as_they_stand_in_the_context(tiny_bert: str, folder: Path, tmp_path: Path):
    path = folder / "SQuAD" / "dev-v1.1.json"
    path.write_text(path.read_text().replace("fish", "f\u00efsh"))  # which BERT reads as fish
    task = load(tiny_bert, folder, do_predict=True, max_eval_samples=1, n_best_size=3, max_answer_length=1)
    assert task.write_predictions
    flat = np.zeros((1, 30))
    path = task.write_predictions("validation", (flat, flat), tmp_path)  # pyright: ignore[reportArgumentType]
    assert path.read_text(encoding="utf-8") == '{\n "q0": "the"\n}\n'
    n_best = (tmp_path / "nbest_predictions.json").read_text(encoding="utf-8")
    assert [one["text"] for one in json.loads(n_best)["q0"]] == ["the", "f\u00efsh", "eats"] and "\u00ef" in n_best


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_predict_samples": 1}, "`max_predict_samples` is not for squad"),
        ({"max_train_samples": 0}, "`max_train_samples` must be at least 1"),
        ({"max_length": 129}, "max_length` must be from 8 to this model's 128"),
        ({"doc_stride": 60}, "`doc_stride` 60 is too large for `max_length` 64"),
        ({"doc_stride": -1}, "`doc_stride` must be at least 0"),
        ({"n_best_size": 0}, "`n_best_size` must be at least 1"),
        ({"max_answer_length": 0}, "`max_answer_length` must be at least 1"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str, tiny_bert: str, folder: Path):
    with pytest.raises(ValueError, match=message):
        load(tiny_bert, folder, **options)


def test_missing_files(tmp_path: Path):
    with pytest.raises(ValueError, match="train-v1.1.json does not exist; `data_dir` is the folder of train-v1.1.json"):
        load("no-model-is-looked-for", tmp_path)
    with pytest.raises(ValueError, match="rajpurkar/squad is neither .* `data_dir` with train-v1.1.json"):
        load("no-model-is-looked-for", None)


def test_hub(tiny_bert: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    splits = DatasetDict()
    for split, file in squad.FILES.items():
        splits[split] = read(folder / "SQuAD" / file)
    monkeypatch.setattr(squad, "load_dataset", lambda hub_id: splits)
    task = load(tiny_bert, None)
    assert task.source["kind"] == "hub" and task.train[:] == load(tiny_bert, folder).train[:]
    splits["train"] = splits["train"].map(lambda row: {"context": f"x{row['context']}"})
    with pytest.raises(ValueError, match="rajpurkar/squad, train: question 'q0' has the answer 'fish' with"):
        load(tiny_bert, None)


def networks() -> list[Any]:
    tiny: dict[str, Any] = TINY
    distil: dict[str, Any] = {"vocab_size": 50, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
    return [
        BertForQuestionAnswering(BertConfig(**tiny)),
        RobertaForQuestionAnswering(RobertaConfig(**tiny, pad_token_id=0)),
        DistilBertForQuestionAnswering(DistilBertConfig(**distil)),
    ]


@pytest.mark.parametrize("model", networks(), ids=lambda model: type(model).__name__)
def test_fisher_of_spans_equals_single_gradients(model: Any):
    torch.manual_seed(0)
    batch: dict[str, Any] = {"input_ids": torch.randint(1, 50, (5, 9)), "attention_mask": torch.ones(5, 9).long()}
    batch |= {"start_positions": torch.tensor([0, 2, 3, 8, 1]), "end_positions": torch.tensor([0, 4, 3, 8, 5])}
    model.eval()
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for i in range(5):
        model.zero_grad()
        model(**example(batch, i)).loss.backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                expected[name] += parameter.grad**2
    found = fisher(model, tuple(expected), [batch], progress=False)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-8, msg=name)
    assert expected["qa_outputs.weight"].max() > 1e-4
    assert head_names(model) == ("qa_outputs.weight", "qa_outputs.bias")
    for estimator in ("expected", "sampled"):
        with pytest.raises(ValueError, match="use the `label` Fisher"):
            fisher(model, tuple(expected), [batch], estimator=estimator, progress=False)


def test_a_model_without_such_a_head_is_one_sentence(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ValueError, match="holds no usable model"):
        models.load_question_answerer(str(tmp_path))


def call(monkeypatch: pytest.MonkeyPatch, **flags: object) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *(word for k, v in flags.items() for word in (f"--{k}", str(v)))])
    assert main() == 0


@pytest.mark.parametrize("method", rarely(["dense", "fish", "bitfit", "random", "diff_gates"], ["fish"]))
def test_a_run(method: str, tiny_bert: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "run"
    budget = {"density": 0.1} if method in ("fish", "random") else {}
    call(
        monkeypatch, task="squad", data_dir=folder, model=tiny_bert, method=method, **budget, num_samples=16,
        max_length=64, doc_stride=16, num_train_epochs=4, per_device_train_batch_size=8, learning_rate=0.02,
        disable_tqdm="true", output_dir=out, do_predict="true", eval_strategy="epoch", seed=0,
    )  # fmt: skip
    result = results.read(out / "results.json")
    found = result.metrics["validation"]
    assert found.keys() == {"loss", "exact_match", "f1"} and math.isfinite(found["loss"])
    assert result.main_metric == "f1" and result.title == "SQuAD (subset)"
    assert len([log for log in result.history if "eval_validation_f1" in log]) == 4
    predictions = json.loads((out / "predictions" / "predictions.json").read_text())
    assert metrics.squad(list(predictions.values()), [["fish"]] * 6)["f1"] == found["f1"] > 0.9
    diff = SparseDiff.from_pretrained(out)
    model = of_diff.load_base(diff.info, tiny_bert)
    diff.apply(model)
    assert isinstance(model, BertForQuestionAnswering)
    assert torch.equal(model.qa_outputs.weight, diff.whole["qa_outputs.weight"])
