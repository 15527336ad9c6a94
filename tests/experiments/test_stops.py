"""A run that is stopped at any step, evaluations and epochs' ends included, goes on to what it would have been."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from glue_sparse.experiments import run as run_module
from glue_sparse.experiments.run import run
from glue_sparse.experiments.told import parse
from glue_sparse.records.results import Result
from glue_sparse.training.merging.worker import Worker
from glue_sparse.training.trainer import SparseTrainer
from glue_sparse.writing.ending import Interrupted, raising
from rare import rarely

EPOCHS = {"eval_strategy": "epoch", "logging_steps": 3, "load_best_model_at_end": "true", "save_strategy": "epoch"}
STEPS = {"eval_strategy": "steps", "eval_steps": 4, "logging_strategy": "epoch", "save_steps": 3, "max_steps": 13}
BEST = {**EPOCHS, "save_strategy": "best", "save_total_limit": 1, "metric_for_best_model": "loss"}
MERGE = {
    "method": "fish", "merge_every": 2, "simulate": "true", "num_workers": 2, "refresh_every": 2,
    "eval_strategy": "epoch", "logging_steps": 3, "save_steps": 3,
}  # fmt: skip
RUNS: dict[str, dict[str, Any]] = {
    "fish epochs": {"method": "fish", "density": 0.1, **EPOCHS},
    "fish steps": {"method": "fish", "density": 0.1, **STEPS},
    "fish best": {"method": "fish", "density": 0.1, **BEST},
    "dense epochs": {"method": "dense", **EPOCHS},
    "dense steps": {"method": "dense", **STEPS, "gradient_accumulation_steps": 2, "eval_on_start": "true"},
    "set steps": {"method": "set", "density": 0.3, "update_every": 2, **STEPS},
    "rigl steps": {"method": "rigl", "density": 0.3, "update_every": 2, **STEPS},
    "gates epochs": {"method": "diff_gates", **EPOCHS},
    "refreshed steps": {"method": "fish", "density": 0.1, "update_every": 3, **STEPS},
    "merge": {"density": 0.1, **MERGE},
}
"""Name -> flags; five steps in an epoch, three epochs."""
USUAL = [("fish epochs", 5)]
STOPS = [(name, step) for name in RUNS for step in range(1, 14 if "max_steps" in RUNS[name] else 16)]
TIMES = ("runtime", "per_second", "preparation_time")


class Stop(TrainerCallback):
    """Sends a signal in the course of a step."""

    def __init__(self, step: int):
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step - 1:
            os.kill(os.getpid(), signal.SIGTERM)


def go(base: str, rte: Path, out: Path, flags: dict[str, Any], *more: str) -> Result:
    settings = {
        "task": "rte", "model": base, "data_dir": rte, "num_samples": 16, "num_train_epochs": 3, "learning_rate": 0.01,
        "per_device_train_batch_size": 8, "disable_tqdm": "true", "output_dir": out, "lr_scheduler_type": "cosine",
        **flags,
    }  # fmt: skip
    return run(parse([*(word for key, value in settings.items() for word in (f"--{key}", str(value))), *more]))


def facts(result: Result) -> tuple[Any, ...]:
    """All but clocks."""
    history = [{k: v for k, v in log.items() if not k.endswith(TIMES)} for log in result.history]
    return history, result.metrics, result.cost, result.communication, result.connections


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Append a step to it: the next run gets a signal in that step."""
    steps: list[int] = []
    plain, until = SparseTrainer.__init__, Worker.train_until

    def init(self: SparseTrainer, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **kwargs)
        for step in steps:
            self.add_callback(Stop(step))

    def train_until(self: Worker, step: int, *args: Any) -> float:
        if any(self.step < one <= step for one in steps) and self.order.worker[0] == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return until(self, step, *args)

    monkeypatch.setattr(SparseTrainer, "__init__", init)
    monkeypatch.setattr(Worker, "train_until", train_until)
    yield steps


@pytest.fixture(scope="session")
def wholes() -> dict[str, tuple[tuple[Any, ...], bytes]]:
    """Name of a run -> what it gives when nobody stops it, once it has been asked for."""
    return {}


@pytest.mark.parametrize(("name", "step"), rarely(STOPS, USUAL))
def test_a_stopped_run_ends_as_one_that_was_not(name, step, tiny_bert, rte, tmp_path, stopping, wholes):
    if name not in wholes:
        whole = go(tiny_bert, rte, tmp_path / "whole", RUNS[name])
        wholes[name] = facts(whole), (tmp_path / "whole" / "sparse_diff.safetensors").read_bytes()
        shutil.rmtree(tmp_path / "whole")
    stopping.append(step)
    with pytest.raises(Interrupted, match=f"to go on after step {step if name != 'merge' else ''}"):
        go(tiny_bert, rte, tmp_path / "whole", RUNS[name])
    stopping.clear()
    resumed = go(tiny_bert, rte, tmp_path / "whole", RUNS[name], "--resume_from_checkpoint", "last")
    assert facts(resumed) == wholes[name][0]
    assert (tmp_path / "whole" / "sparse_diff.safetensors").read_bytes() == wholes[name][1]


PHASES: dict[str, tuple[Any, str, str]] = {
    "loading": (run_module, "load_task", "with nothing changed in .*: the same command starts again"),
    "choosing": (SparseTrainer, "choose", "nothing to go on from: the same command starts again"),
    "saving twice": (SparseTrainer, "_save_rng_state", "nothing to go on from: to start again, .* `overwrite`"),
    "scoring": (run_module, "_evaluate", "to go on after step 13, .* `resume_from_checkpoint` last"),
    "the model": (run_module, "_write", "to go on after step 13, .* `resume_from_checkpoint` last"),
}
"""When two signals come -> what is called then, and what is said."""


@pytest.mark.parametrize("phase", rarely(PHASES, ["loading", "choosing", "saving twice", "scoring"]))
def test_a_signal_at_any_time_says_what_is_kept(phase, tiny_bert, rte, tmp_path, monkeypatch):
    place, name, said = PHASES[phase]
    flags, called = {**RUNS["fish steps"], "eval_steps": 13, "save_steps": 13}, getattr(place, name)

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        for _ in range(2 if phase == "saving twice" else 1):
            os.kill(os.getpid(), signal.SIGTERM)
        return called(*args, **kwargs)

    monkeypatch.setattr(place, name, interrupted)
    with pytest.raises(Interrupted, match=said) as error, raising():
        go(tiny_bert, rte, tmp_path / "run", flags)
    assert error.value.number == signal.SIGTERM
    monkeypatch.setattr(place, name, called)
    how = "overwrite" if "overwrite" in said else "resume_from_checkpoint"
    again = {"overwrite": ["--overwrite", "true"], "resume_from_checkpoint": ["--resume_from_checkpoint", "last"]}[how]
    result = go(tiny_bert, rte, tmp_path / "run", flags, *([] if "same command" in said else again))
    assert result.history[-1]["step"] == 13 and len([log for log in result.history if "train_loss" in log]) == 1
