"""What needs an extra says so in one sentence where the extra is not installed, and imports nothing else for it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from glue_sparse.analysis import harness
from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.benchmarks import sharded, training
from glue_sparse.experiments import grids, slurm
from glue_sparse.reports.figures import plots
from glue_sparse.tasks.registry import load_task
from glue_sparse.writing.extras import MissingExtra, needed
from hiding import hide


def submit() -> None:
    slurm.run_slurm(grids.read(Path("table_1"), flags=["--model", "minilm"]), 1)


def see() -> None:
    load_task(TaskArguments(task="cifar10", data_dir="none"), ModelArguments(model="resnet9"), seed=0)


@pytest.mark.parametrize(
    ("module", "use", "what", "extra"),
    [
        ("matplotlib", plots.pyplot, "a figure", "plots"),
        ("PIL", see, "`task` cifar10", "vision"),
        ("submitit", submit, "`launcher` slurm", "slurm"),
        ("lm_eval", harness.version, "an evaluation by lm_eval", "eval"),
        ("peft", lambda: training.train(1, False), "a comparison with peft", "benchmark"),
        ("peft", lambda: sharded.run(2, 128, 1, None), "a comparison with peft", "benchmark"),
    ],
)
def test_what_an_extra_brings_is_asked_for(
    module: str, use: Callable[[], object], what: str, extra: str, monkeypatch: pytest.MonkeyPatch
):
    hide(module, monkeypatch)
    with pytest.raises(MissingExtra) as caught:
        use()
    assert str(caught.value) == f'{what} needs a package that is not installed: pip install "glue_sparse[{extra}]"'


def test_a_broken_package_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "broken_here.py").write_text("from sys import no_such_name")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="no_such_name"):
        needed("broken_here", "this", "plots")
    assert needed("json", "this", "plots").loads("1") == 1
