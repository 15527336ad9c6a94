"""Metrics that a user asks for: what they are given, what they are called, and each way they can be wrong."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pytest
from transformers import EvalPrediction

from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.experiments.told import command_line, parse
from glue_sparse.records.scales import scale_of
from glue_sparse.tasks.asked_metrics import Asked, with_asked
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.registry import load_task
from glue_sparse.writing.sentences import LONGEST
from metric_scripts import NUMBERS, SHARE, metric_script
from rte_runs import go

F1 = """{"f1": f1_score([r for _, r in pairs], [p for p, _ in pairs], average=average)}"""
SKLEARN: dict[str, str] = {"imports": "from sklearn.metrics import f1_score\n", "options": "average='binary'"}


def films(model: str, folder: Path, labels: str, *metric: str, trusts: bool = False, **options: Any) -> Task:
    path = folder / "films.csv"
    path.write_text("text,label\n" + "".join(f"a film {row},{label}\n" for row, label in enumerate(labels.split())))
    told = TaskArguments(
        task="file", train_file=str(path), validation_file=str(path), metric=[*metric], **options
    )  # fmt: skip
    return load_task(told, ModelArguments(model=model, trust_remote_code=trusts), seed=0)


def score(task: Task, outputs: Any, labels: Any) -> dict[str, float]:
    return task.metrics(EvalPrediction(np.asarray(outputs, dtype=np.float32), np.asarray(labels)))


def test_a_script_is_scored_beside_the_official_metric(tiny_bert: str, tmp_path: Path):
    returns = f'{{"share": ({SHARE}) ** power, "worst": min(p - r for p, r in pairs), "all": [1, 2]}}'
    script = metric_script(tmp_path / "own" / "own.py", returns)
    task = films(tiny_bert, tmp_path, "a b c a", script, f"{tmp_path}/own:power=3")
    draws = np.random.default_rng(0)
    logits, labels = draws.normal(size=(50, 3)), draws.integers(3, size=50)
    right = logits.astype(np.float32).argmax(-1) - labels
    share = float(np.mean(right == 0))
    found = score(task, logits, labels)
    assert found == pytest.approx({
        "accuracy": share, "own_share": share, "own_worst": right.min(), "3_own_share": share**3,
        "3_own_worst": right.min(),
    })  # fmt: skip
    assert task.main_metric == "own_share" and task.metric_names == (*found,)


def test_an_official_metric_stays_the_main_one(rte: Path, tiny_bert: str, tmp_path: Path):
    script = metric_script(tmp_path / "own.py", SHARE)
    more = ("--metric", script, "--max_steps", "1", "--method", "random", "--density", "0.5")
    scores = ("--eval_strategy", "steps", "--eval_steps", "1", "--load_best_model_at_end", "--save_strategy", "best",
              "--metric_for_best_model", "own")  # fmt: skip
    result = go(tiny_bert, rte, tmp_path / "run", *more, *scores)
    found = result.metrics["validation"]
    assert result.main_metric == "accuracy" and found["own"] == found["accuracy"] > 0
    assert {*result.logged("eval_validation_own")} == {(1, found["own"])}
    with pytest.raises(ValueError, match="holds a run with `metric`"):
        go(tiny_bert, rte, tmp_path / "run", *more[2:], *scores[:-2],
           "--resume_from_checkpoint", "auto")  # fmt: skip


def test_metrics_of_more_than_two_classes_are_told_how_to_average(tiny_bert: str, tmp_path: Path):
    script = metric_script(tmp_path / "f1.py", F1, **SKLEARN)
    with pytest.raises(ValueError, match=r"multiclass.*as in f1.py:average=macro") as error:
        films(tiny_bert, tmp_path, "a b c a", script)
    assert len(str(error.value).replace(script, "f1")) <= LONGEST
    task = films(tiny_bert, tmp_path, "a b c a", f"{script}:average=macro", f"{script}:average=micro")
    found = score(task, np.eye(3), [0, 1, 1])  # class 0 is right once, class 1 in one of two, class 2 is never there
    assert found == pytest.approx({"accuracy": 2 / 3, "macro_f1": (1 + 2 / 3 + 0) / 3, "micro_f1": 2 / 3})
    assert "f1" in score(films(tiny_bert, tmp_path, "a b b a", script), np.eye(2), [0, 1])


@pytest.mark.filterwarnings("ignore:invalid value")  # of the official correlations
def test_numbers_undefined_and_overflown(tiny_bert: str, tmp_path: Path):
    ratio = "sum(r for _, r in pairs) / len({p for p, _ in pairs}) if len({p for p, _ in pairs}) > 1 else float('nan')"
    scripts = [metric_script(tmp_path / "ratio.py", ratio, NUMBERS),
               metric_script(tmp_path / "mse.py", "sum((p - r) ** 2 for p, r in pairs) / len(pairs)",
                             NUMBERS)]  # fmt: skip
    task = films(tiny_bert, tmp_path, "0.5 1.5 2 3", *scripts)
    assert task.main_metric == "ratio" and task.metric_names[-2:] == ("ratio", "mse")
    found = score(task, [[1.0], [2.0]], [2.0, 4.0])
    assert (found["ratio"], found["mse"]) == (3.0, 2.5)
    assert score(task, [[1.0], [1.0]], [2.0, 4.0])["ratio"] == 0.0
    with pytest.raises(ValueError, match="gives ratio inf, which is no score"):
        score(task, [[1.0], [2.0]], [2.0, np.inf])
    overflown = score(task, [[np.inf], [1.0]], [2.0, 4.0])
    assert np.isnan(overflown["ratio"]) and np.isnan(overflown["mse"])
    with pytest.raises(ValueError, match="takes whole numbers"):
        films(tiny_bert, tmp_path, "0.5 1.5 2 3", metric_script(tmp_path / "whole.py", SHARE))


WRONG = {
    "nix.py": "is no metric script: there is no file nix.py",
    "./own": "there is no file own/own.py",
    "somebody/own": "is code of others, which is not run unasked.*`trust_remote_code` true",
    "own.py:power": "'power' in its arguments",
    "own.py:power=": "'power' in its arguments",
    "own.py:=2": "'' in its arguments",
    "own.py:other=2": "fails on what this task predicts:.*other.*as in own.py:average=macro",
    "text.py": r"gives no number \(str\)",
    "lists.py": r"gives no number \(dict\)",
    "needs.py": "cannot be loaded.*no_such_package",
    "accuracy.py": "gives accuracy, which is there already",
    "runtime.py": "gives runtime, which is there already",
    "broken.py": "cannot be loaded, as a script with one class of `evaluate.Metric` can",
    "endless.py": "gives endless inf, which is no score",
    "lost_error.py": "gives lost_error nan, which is no score",
    "leaves.py": "cannot be loaded.*: 3",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_cannot_score_is_said_before_training(
    text: str, tiny_bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    returns = {"own": SHARE, "text": "'good'", "lists": '{"all": [1.0]}', "accuracy": SHARE, "runtime": SHARE,
               "endless": "float('inf')", "lost_error": "float('nan')"}  # fmt: skip
    for name, value in returns.items():
        if text.startswith(name):
            metric_script(tmp_path / f"{name}.py", value)
    metric_script(tmp_path / "needs.py", SHARE, imports="import no_such_package\n")
    metric_script(tmp_path / "leaves.py", SHARE, imports="import sys\nsys.exit(3)\n")
    (tmp_path / "broken.py").write_text("class Broken:\n    pass\n")
    with pytest.raises(ValueError, match=WRONG[text]):
        films(tiny_bert, tmp_path, "a b b a", text)


def test_numbers_of_numpy_and_torch_count(tiny_bert: str, tmp_path: Path):
    returns = '{"a": np.array(0.5), "b": torch.tensor(0.25), "c": np.bool_(True), "d": np.ones(1)}'
    script = metric_script(tmp_path / "own.py", returns, imports="import numpy as np\nimport torch\n")
    found = score(films(tiny_bert, tmp_path, "a b b a", script), [[1.0, 0.0]], [1])
    assert {key: value for key, value in found.items() if "own" in key} == {"own_a": 0.5, "own_b": 0.25, "own_c": 1.0}


@pytest.mark.parametrize("name", ["accuracy", "somebody/own"])
def test_the_hub_is_asked_for_names(name: str, tiny_bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def absent(place: str, **_: Any) -> None:
        asked.append(place)
        raise FileNotFoundError("no network")

    monkeypatch.setattr(evaluate, "load", absent)
    (tmp_path / "accuracy").mkdir()  # a folder without a script of its name is no metric
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="give the path of a metric script"):
        films(tiny_bert, tmp_path, "a b b a", name, trusts=True)
    assert asked == [name]


def test_tasks_that_predict_neither_classes_nor_numbers_refuse(tiny_bert: str, tmp_path: Path):
    task = replace(films(tiny_bert, tmp_path, "a b b a"), compared=None)
    with pytest.raises(ValueError, match="leave it out"):
        with_asked(task, ["accuracy"], is_official=True, trusts=False)


def test_a_metric_that_changes_what_it_gives_is_named(tiny_bert: str, tmp_path: Path):
    script = metric_script(tmp_path / "own.py", '{"few" if len(pairs) < 5 else "many": 1.0}')
    task = films(tiny_bert, tmp_path, "a b b a", script)  # tried on eight pairs
    with pytest.raises(ValueError, match="gave many before training and does not now"):
        score(task, np.eye(2), [0, 1])


def test_values_are_called_so_that_the_last_word_tells_the_scale():
    called = {"f1:average=macro": "macro_f1", "mse:squared=false": "false_mse", "a/b/own.py": "own", "owner/own": "own"}
    for text, name in called.items():
        assert Asked.of(text).called(Asked.of(text).stem) == name
    assert Asked.of("x/own.py:beta=0.5,average=macro").called("score") == "0.5_macro_own_score"
    assert Asked.of("f1:average=null").options == {"average": None}
    for name in ("false_mse", "own_error", "brier_score", "mean_absolute_error", "mlm_loss"):
        assert scale_of(name).smaller_is_better, name
    for name in ("accuracy", "0.5_macro_f1", "own_score", "character", "error_free_f1"):
        assert not scale_of(name).smaller_is_better, name


def test_metrics_add_up_and_replace_those_of_a_yaml(tmp_path: Path):
    (tmp_path / "settings.yaml").write_text("base: {metric: [one, two]}\n")
    words = ["--task", "rte", "--model", "minilm", "--method", "dense", "--config", str(tmp_path / "settings.yaml")]
    assert parse(words).task.metric == ["one", "two"]
    assert parse([*words, "--metric", "a", "b", "--metric", "c"]).task.metric == ["a", "b", "c"]
    assert parse(words).task.metric == ["one", "two"] and not command_line().flags["metric"].default
    (tmp_path / "settings.yaml").write_text(json.dumps({"base": {"metric": "one"}}))
    assert parse(words).task.metric == ["one"]
