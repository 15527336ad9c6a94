"""Scores that choose a model or steer a learning rate: every name a user may write, and what is refused at once."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import SchedulerType

from glue_sparse.arguments.training import RunArguments
from glue_sparse.cli.train import main
from glue_sparse.experiments.evaluation import settle_metric
from glue_sparse.tasks.base import Task
from rare import rarely

BEST = "--load_best_model_at_end true --eval_strategy epoch --save_strategy epoch"
PLATEAU = "--lr_scheduler_type reduce_lr_on_plateau --eval_strategy epoch"
SPLITS = {"validation_matched": [], "validation_mismatched": []}


@pytest.fixture
def films(tmp_path: Path) -> str:
    path = tmp_path / "films.csv"
    path.write_text("text,label\n" + "".join(f"a {'good' if i % 2 else 'bad'} film,{i % 2}\n" for i in range(12)))
    return f"--task file --train_file {path} --validation_file {path}"


def call(line: str, model: str, out: Path, method: str = "--method random --density 0.5") -> int:
    words = f"{line} {method} --model {model} --output_dir {out} --num_train_epochs 2 --use_cpu true --config none"
    try:
        return main([*words.split(), "--disable_tqdm", "true"])
    except SystemExit as end:
        return int(end.code or 0)


def state(out: Path) -> dict[str, Any]:
    return json.loads(next(out.glob("checkpoint-*/trainer_state.json")).read_text())


@pytest.mark.parametrize(
    ("asked", "metric"),
    rarely(
        [
            (name, f"eval_validation_{metric}")
            for metric in ("accuracy", "loss")
            for name in (metric, f"eval_{metric}", f"validation_{metric}", f"eval_validation_{metric}")
        ],
        [("accuracy", "eval_validation_accuracy"), ("validation_loss", "eval_validation_loss")],
    ),
)
def test_every_spelling_of_a_score(asked: str, metric: str, films: str, tiny_bert: str, tmp_path: Path):
    out = tmp_path / "run"
    assert call(f"{films} {BEST} --metric_for_best_model {asked}", tiny_bert, out) == 0
    scores = [log[metric] for log in state(out)["log_history"] if metric in log]
    assert state(out)["best_metric"] in scores


@pytest.mark.parametrize("more", ["", "--metric_for_best_model accuracy", BEST.replace("--eval_strategy epoch", "")])
def test_a_rate_that_follows_a_score(more: str, films: str, tiny_bert: str, tmp_path: Path):
    assert call(f"{films} {PLATEAU} {more}", tiny_bert, tmp_path / "run") == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{BEST} --metric_for_best_model f1", "score f1 does not exist: as --metric_for_best_model give one of "
                                               "validation_loss, validation_accuracy"),
        (f"{PLATEAU} --metric_for_best_model test_loss", "give one of validation_loss, validation_accuracy"),
        ("--save_strategy best --eval_strategy epoch --metric_for_best_model f1", "score f1 does not exist"),
        ("--eval_do_concat_batches false", "--eval_do_concat_batches false hands"),
        ("--batch_eval_metrics true", "--batch_eval_metrics scores batch by batch"),
        ("--label_names foo", "the model takes no foo, so it would not be scored: leave --label_names out"),
        ("--debug underflow_overflow", "--debug asks every tensor for its extremes"),
        ("--report_to foo", "the Trainer cannot be had as it is asked for: foo is not supported"),
        ("--optim sgd --optim_args foo", "--optim_args is NAME=VALUE,NAME=VALUE"),
        ("--lr_scheduler_type cosine_with_min_lr", "the schedule of --lr_scheduler_type cosine_with_min_lr cannot be"),
        ("--prediction_loss_only true", "--prediction_loss_only leaves a run without its scores"),
    ],
)  # fmt: skip
def test_refused_at_once(line: str, message: str, films: str, tiny_bert: str, tmp_path: Path, capsys):
    out = tmp_path / "run"
    assert call(f"{films} {line}", tiny_bert, out) == 1
    told = capsys.readouterr().err
    assert message in told and "Traceback" not in told
    assert not list(out.rglob("*.safetensors")) and not (out / "results.json").exists()


def test_smoothing_needs_classes(tiny_bert: str, tmp_path: Path, capsys):
    path = tmp_path / "scores.csv"
    path.write_text("text,label\n" + "".join(f"a film,{i}.5\n" for i in range(8)))
    line = f"--task file --train_file {path} --validation_file {path} --label_smoothing_factor 0.1"
    assert call(line, tiny_bert, tmp_path / "run") == 1
    assert "--label_smoothing_factor is for classes, which --task file does not have" in capsys.readouterr().err


def settled(told: dict[str, Any], evals: dict[str, Any] = SPLITS, main_metric: str = "accuracy", **args: Any):
    task: Any = object.__new__(Task)
    names = (main_metric, "f1")
    for field, value in (("evals", evals), ("main_metric", main_metric), ("metric_names", names)):
        object.__setattr__(task, field, value)
    args = {"eval_strategy": "epoch", "save_strategy": "epoch", "use_cpu": True, **args}
    found = RunArguments(output_dir="unused", **args, **told)
    settle_metric(found, told, task)
    return found


def test_several_splits_need_a_name_with_the_split():
    with pytest.raises(ValueError, match="score f1 is one of each validation split: .* validation_mismatched_f1"):
        settled({"metric_for_best_model": "f1"})
    found = settled({"metric_for_best_model": "eval_validation_mismatched_f1"})
    assert found.metric_for_best_model == "validation_mismatched_f1" and found.greater_is_better
    assert settled({}, load_best_model_at_end=True).metric_for_best_model == "validation_matched_accuracy"


def test_what_is_better_follows_the_score():
    rate: dict[str, Any] = {"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"patience": 1}}
    found = settled({"metric_for_best_model": "validation_matched_f1"}, **rate)
    assert found.lr_scheduler_kwargs == {"patience": 1, "mode": "max"}
    found = settled({}, **rate)
    assert found.metric_for_best_model == "validation_matched_loss" and found.lr_scheduler_kwargs == {"patience": 1}
    assert not settled({}, load_best_model_at_end=True, main_metric="mlm_loss").greater_is_better
    told = {"metric_for_best_model": "validation_matched_loss", "greater_is_better": True}
    assert settled(told, load_best_model_at_end=True).greater_is_better
    assert settled({}).metric_for_best_model is None
    assert SchedulerType("greedy") and settled({}, lr_scheduler_type="greedy").metric_for_best_model
