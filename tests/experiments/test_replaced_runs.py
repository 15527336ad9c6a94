"""A run that replaces another one: its inputs are safe, and the earlier run stays until the new one trains."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from glue_sparse.arguments.command_line import DEFAULTS
from glue_sparse.cli import diff, masks, prune_diff
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.experiments import inputs, run
from glue_sparse.experiments.told import command_line
from glue_sparse.records import results
from glue_sparse.training.trainer import SparseTrainer
from glue_sparse.writing import aside
from glue_sparse.writing.ending import Interrupted
from rte_runs import go
from shared_runs import made_once

SHORT = ("--max_steps", "2", "--method", "random", "--density", "0.1", "--overwrite", "true")


@pytest.fixture(scope="session")
def kept(tiny_bert: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its ordinary model, and a configuration in its predictions."""

    def make(folder: Path) -> None:
        rte = folder / "glue" / "RTE"
        rte.mkdir(parents=True)
        rows = [f"{i}\tthe cat sleeps\ta dog runs\t{('entailment', 'not_entailment')[i % 2]}" for i in range(16)]
        for split in ("train", "dev"):
            (rte / f"{split}.tsv").write_text("\n".join(["index\tsentence1\tsentence2\tlabel", *rows]) + "\n")
        go(tiny_bert, rte.parent, folder / "run", *SHORT, "--save_model", "true")
        (folder / "run" / "predictions").mkdir()
        (folder / "run" / "predictions" / "x.yaml").write_text(DEFAULTS.read_text())

    return made_once(tmp_path_factory, "kept_run", make)


@pytest.fixture
def rte(kept: Path) -> Path:
    return kept / "glue"


@pytest.fixture
def old(kept: Path, tmp_path: Path) -> Path:
    """The folder of such a run."""
    shutil.copytree(kept / "run", tmp_path / "run")
    return tmp_path / "run"


def content(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if path.name != aside.LOCK}


def links(folder: Path, out: Path) -> Path:
    """A folder of links to the files of another one."""
    out.mkdir()
    for path in folder.iterdir():
        (out / path.name).symlink_to(path)
    return out


@pytest.mark.parametrize(
    ("flag", "place", "more"),
    [
        ("model", "model", ()),
        ("model", "../run/./model@scratch3", ()),
        ("model", "links", ()),
        ("mask_file", "model", ("--method", "fixed_mask")),
        ("start_diff", "", ("--method", "fixed_mask")),
        ("start_diff", "sparse_diff.safetensors", ("--method", "fixed_mask")),
        ("data_dir", "predictions", ()),
        ("config", "predictions/x.yaml", ()),
    ],
)
def test_a_run_does_not_replace_what_it_reads(
    old: Path, rte: Path, tiny_bert: str, flag: str, place: str, more: tuple[str, ...]
):
    before = content(old)
    path = links(old / "model", old.parent / "links") if place == "links" else old / place
    with pytest.raises(ValueError, match=f"`{flag}` .*give another `output_dir`"):
        go(tiny_bert, rte, old, *SHORT, *more, f"--{flag}", str(path))
    assert content(old) == before


def test_a_run_in_the_folder_of_its_model_is_refused(old: Path, rte: Path):
    (old / "model" / "results.json").unlink(missing_ok=True)
    before = content(old)
    with pytest.raises(ValueError, match="is the folder of this run"):
        go(str(old / "model"), rte, old / "model", *SHORT, "--save_model", "true")
    assert content(old) == before and not (old / "model" / aside.LOCK).exists()


def test_every_flag_of_ours_that_speaks_of_a_file_or_folder_says_that_it_is_read():
    theirs = {"output_dir", "resume_from_checkpoint", "save_model", "delta_checkpoints", "overwrite"}
    ours = [flag for flag in command_line().flags.values() if flag.name not in theirs]
    speaks = [f for f in ours if f.kind is str and re.search(r"\b([Ff]older|hub id|YAML with|data,|mask file)", f.help)]
    trainers = {"logging_dir", "hub_model_id", "deepspeed", "push_to_hub", "hub_strategy"}
    assert {f.name for f in speaks if not f.reads} <= trainers
    assert {"model", "config", "start_diff", "mask_file", "data_dir", "tokenizer"} <= {f.name for f in ours if f.reads}


@pytest.mark.parametrize(
    "late", [("--optim", "sgd", "--optim_args", "momentum=x"), ("--lr_scheduler_kwargs", '{"x": 1}')]
)
def test_a_run_that_fails_before_it_trains_leaves_the_earlier_one(old: Path, rte: Path, tiny_bert: str, late: Any):
    before = content(old)
    with pytest.raises(ValueError, match="cannot be had as it is asked for"):
        go(tiny_bert, rte, old, *SHORT, *late)
    assert content(old) == before


def stop_in(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real, left = SparseTrainer.training_step, [step]

    def stopped(self: SparseTrainer, *args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return real(self, *args, **kwargs)

    monkeypatch.setattr(SparseTrainer, "training_step", stopped)


def test_the_earlier_run_goes_after_the_first_step(
    old: Path, rte: Path, tiny_bert: str, monkeypatch: pytest.MonkeyPatch
):
    before = content(old)
    stop_in(1, monkeypatch)
    with pytest.raises(Interrupted, match="so the earlier run is back in .*: the same command starts again"):
        go(tiny_bert, rte, old, *SHORT)
    assert content(old) == before
    stop_in(2, monkeypatch)
    with pytest.raises(Interrupted):
        go(tiny_bert, rte, old, *SHORT)
    assert content(old).keys() == {"arguments.json", "command.txt"}


def test_a_readme_of_ones_own_outlives_the_run(old: Path, rte: Path, tiny_bert: str):
    (old / "README.md").write_text("mine")
    go(tiny_bert, rte, old, *SHORT)
    assert (old / "README.md").read_text() == "mine" and (old / "results.json").exists()


def test_a_model_with_a_readme_of_ones_own_is_not_replaced(old: Path, rte: Path, tiny_bert: str):
    (old / "model" / "README.md").write_text("mine")
    before = content(old)
    with pytest.raises(ValueError, match=r"model holds your own README\.md: move it away"):
        go(tiny_bert, rte, old, *SHORT)
    assert content(old) == before


def test_after_a_kill_whoever_looks_finds_the_earlier_run(
    old: Path, rte: Path, tiny_bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = content(old)
    for look in (
        lambda: results.collect(old.parent),
        lambda: [go(tiny_bert, rte, old, *SHORT[:-2])],
        lambda: [SparseDiff.from_pretrained(old)],
        lambda: [diff.main(["apply", str(old), str(tmp_path / "applied")])],
        lambda: [masks.main(["show", str(old)])],
        lambda: [masks.main(["make", str(old / "model"), str(tmp_path / "masks"), "--sparsity", "0.5"])],
        lambda: [go(str(old / "model"), rte, tmp_path / "next", *SHORT)],
    ):
        stop_in(1, monkeypatch)
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            patch.setattr(aside, "put_back", lambda folder: None)
            go(tiny_bert, rte, old, *SHORT)
        assert not (old / "results.json").exists()
        try:
            assert len(look()) == 1
        except ValueError as error:
            assert "holds a finished run" in str(error)
        assert content(old) == before


def test_a_run_that_was_finished_while_it_was_waited_for_is_not_repeated(
    old: Path, rte: Path, tiny_bert: str, monkeypatch: pytest.MonkeyPatch
):
    result = (old / "results.json").rename(old / "elsewhere")
    monkeypatch.setattr(inputs, "check", lambda *args: result.rename(old / "results.json"))
    monkeypatch.setattr(run, "_run", lambda *args: pytest.fail("it ran again"))
    assert go(tiny_bert, rte, old, *SHORT[:-2], "--resume_from_checkpoint", "auto").task == "rte"


def test_nobody_writes_into_the_folder_of_a_run_at_work(old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (old / "results.json").unlink()
    with aside.FileLock(old / aside.LOCK), pytest.raises(SystemExit):
        prune_diff.main([str(tmp_path / "any"), str(old), "--density", "0.1"])
    assert "error: a run is at work in" in capsys.readouterr().err
