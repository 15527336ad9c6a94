"""What trackio, wandb and tensorboard are told of the runs of a grid: project, name and tags."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from transformers import PretrainedConfig, TrainerControl, TrainerState
from transformers.integrations import integration_utils as services

import small_grids
from glue_sparse.experiments import grids, tracking
from glue_sparse.experiments.cells import Cell
from glue_sparse.experiments.settle import Settled
from glue_sparse.records import results

TAGS = {"method": "random", "task": "rte", "model": "minilm"}


def first(folder: Path, *flags: str) -> Cell:
    return grids.read(small_grids.write(folder), output_dir=folder / "runs", flags=flags).cells[0]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), {}),
        (("--report_to", "none"), {}),
        (("--report_to", "tensorboard"), {"run_name": "minilm/random/rte/seed0"}),
        (("--report_to", "wandb"), {"run_name": "minilm/random/rte/seed0", "project": "small"}),
        (("--report_to", "trackio", "--project", "mine"), {"run_name": "minilm/random/rte/seed0", "project": "mine"}),
    ],
)
def test_a_run_of_a_grid_is_called_by_its_place(flags: tuple[str, ...], said: dict[str, str], tmp_path: Path):
    cell = first(tmp_path, *flags)
    assert {name: cell.value(name) for name in ("run_name", "project") if f"--{name}" in cell.argv} == said
    plain = first(tmp_path)
    assert results.settings(cell.arguments.given) == results.settings(plain.arguments.given)


def settled(folder: Path, service: str) -> Settled:
    """A run, without the service being there, which transformers asks for."""
    cell = first(folder, "--report_to", service)
    args = first(folder).arguments.training
    args.report_to, args.run_name, args.project = [service], cell.value("run_name"), cell.value("project")
    return Settled(cell.arguments, cell.arguments.method, args)


def begin(kind: Any, run: Settled) -> Any:
    """What a reporting callback of transformers does first, with a service that only notes what it is told."""
    callback, model = kind.__new__(kind), SimpleNamespace(config=PretrainedConfig(), num_parameters=lambda: 1)
    fake = MagicMock(run=None)
    callback.__dict__.update(_wandb=fake, _trackio=fake, tb_writer=fake, logging_dir="logs", _initialized=False,
                             _log_model=MagicMock(is_enabled=False), _SummaryWriter=None)  # fmt: skip
    seen: dict[str, str] = {}
    fake.init.side_effect = lambda **_: (seen.update(os.environ), setattr(fake, "run", MagicMock()))
    state = TrainerState(is_world_process_zero=True)
    with tracking.told(run):
        if kind is services.TensorBoardCallback:
            callback.on_train_begin(run.training, state, TrainerControl(), model=model)
        else:
            callback.setup(run.training, state, model)
    return fake, seen


def test_wandb_hears_project_name_and_tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wandb.sdk.lib.config_util", MagicMock(ConfigError=KeyError))
    for name in ("WANDB_PROJECT", "WANDB_TAGS"):
        monkeypatch.delenv(name, raising=False)
    fake, seen = begin(services.WandbCallback, settled(tmp_path, "wandb"))
    assert fake.init.call_args.kwargs == {"project": "small", "name": "minilm/random/rte/seed0"}
    assert seen["WANDB_TAGS"] == "random,rte,minilm" and fake.config.update.call_args.args[0]["tags"] == TAGS
    assert "WANDB_TAGS" not in os.environ and "WANDB_PROJECT" not in os.environ


def test_trackio_hears_project_name_and_tags(tmp_path: Path):
    fake, _ = begin(services.TrackioCallback, settled(tmp_path, "trackio"))
    told = fake.init.call_args.kwargs
    assert (told["project"], told["name"]) == ("small", "minilm/random/rte/seed0")
    assert fake.config.update.call_args.args[0]["tags"] == TAGS


def test_tensorboard_shows_name_and_tags(tmp_path: Path):
    fake, _ = begin(services.TensorBoardCallback, settled(tmp_path, "tensorboard"))
    shown = json.loads(fake.add_text.call_args_list[0].args[1])
    assert shown["tags"] == TAGS and shown["run_name"] == "minilm/random/rte/seed0"


def test_what_the_user_has_set_stays_and_tags_are_as_wandb_takes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.delenv("WANDB_TAGS", raising=False)
    run = settled(tmp_path, "wandb")
    run.arguments.model.model = "some/" + "a,b" * 40
    with tracking.told(run):
        assert os.environ["WANDB_PROJECT"] == "mine"
        last = os.environ["WANDB_TAGS"].split(",")[-1]
        assert len(last) == 64 and last.startswith("a ba b")
    assert os.environ["WANDB_PROJECT"] == "mine" and "WANDB_TAGS" not in os.environ


def test_a_run_that_is_reported_nowhere_sets_no_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("WANDB_PROJECT", "WANDB_TAGS"):
        monkeypatch.delenv(name, raising=False)
    cell = first(tmp_path)
    with tracking.told(Settled(cell.arguments, cell.arguments.method, cell.arguments.training)):
        assert "WANDB_PROJECT" not in os.environ and "WANDB_TAGS" not in os.environ
