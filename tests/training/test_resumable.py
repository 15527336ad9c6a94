"""Evaluation and prediction change no random state, and a checkpoint whose files are not its own is refused."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from glue_sparse.core.randomness import chance_kept
from glue_sparse.records import checkpoints
from training import trainer


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two steps of four."""
    folder = tmp_path_factory.mktemp("stopped")
    trainer(folder, max_steps=4, save_strategy="steps", save_steps=2).train()
    return folder / "checkpoint-2"


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def all_states() -> tuple[object, ...]:
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # pyright: ignore


@pytest.mark.parametrize("look", ["evaluate", "predict"])
def test_who_looks_draws_nothing(look, tmp_path: Path):
    own = trainer(tmp_path)
    own.compute_metrics = lambda outputs: {"drawn": drawn()[2]}
    before = all_states()
    found = own.evaluate() if look == "evaluate" else own.predict(own.eval_dataset).metrics
    assert found["eval_drawn" if look == "evaluate" else "test_drawn"] >= 0
    assert all_states() == before


@pytest.mark.skipif(torch.accelerator.is_available(), reason="memory is pinned for an accelerator")
@pytest.mark.filterwarnings("error:'pin_memory' argument")
def test_without_an_accelerator_no_warning_about_pinned_memory(tmp_path: Path):
    own = trainer(tmp_path, use_cpu=False)
    own.train()
    own.evaluate()


def test_random_numbers_go_on_after_an_error_too():
    before = all_states()
    with pytest.raises(KeyError), chance_kept():
        drawn()
        torch.manual_seed(5)
        raise KeyError
    assert all_states() == before


class Command:
    """Runs a command where it is unpickled without a check."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (self.command,)


def other_optimizer(path: Path) -> None:
    weight = torch.nn.Parameter(torch.zeros(3))
    torch.save(torch.optim.SGD([weight], lr=0.1, momentum=0.9).state_dict(), path)


FOREIGN: dict[str, Callable[[Path], object]] = {
    "code": lambda path: torch.save(Command(f"touch {path.parent}/ran"), path),
    "text": lambda path: path.write_text("{}"),
    "empty": lambda path: path.write_bytes(b""),
    "list": lambda path: torch.save([1], path),
    "other": other_optimizer,
}


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_state_of_this_run_is_refused_and_never_run(name, kind, stopped: Path, tmp_path: Path):
    folder = tmp_path / stopped.name
    shutil.copytree(stopped, folder)
    (folder / checkpoints.LIST).unlink()  # as an older version wrote it; with a list nothing is read at all
    FOREIGN[kind](folder / name)
    with pytest.raises(ValueError, match=r"of checkpoint .* cannot be used here .*start again"):
        trainer(tmp_path, max_steps=4).train(resume_from_checkpoint=str(folder))
    assert not (folder / "ran").exists()


def test_a_best_checkpoint_that_is_gone_is_said(tmp_path: Path):
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 1,
            "save_steps": 1, "max_steps": 3, "metric_for_best_model": "loss"}  # fmt: skip
    trainer(tmp_path, **best).train()
    moved = tmp_path / "moved"  # the best is looked for beside the checkpoint first
    moved.mkdir()
    for step in (1, 2):
        (tmp_path / f"checkpoint-{step}").rename(moved / f"checkpoint-{step}")
    resumed = trainer(tmp_path, **best)
    resumed.train(resume_from_checkpoint=str(moved / "checkpoint-2"))
    assert resumed.state.best_model_checkpoint == str(moved / "checkpoint-1")
    shutil.rmtree(moved / "checkpoint-1")
    with pytest.raises(ValueError, match=r"checkpoint-1, the best checkpoint when .*checkpoint-2 was written, is gone"):
        trainer(tmp_path, **best).train(resume_from_checkpoint=str(moved / "checkpoint-2"))
