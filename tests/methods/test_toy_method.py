"""A method of somebody else's with a flag of its own, all of it in this file: known to training and --help."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from glue_sparse import Method, SparseDiff, SparseMethod, register_method
from glue_sparse.arguments.flags import arg, check_bounds
from glue_sparse.arguments.method import MethodArguments
from glue_sparse.core.masks import Masks
from glue_sparse.core.params import body_names
from glue_sparse.experiments.run import run
from glue_sparse.experiments.told import default_of, parse
from glue_sparse.methods.base import Batches, Combine, alone
from glue_sparse.methods.registry import METHODS


@dataclass
class ToyFlags:
    """How many entries."""

    toy_count: int = arg(3, "Entries of each tensor.", methods=("toy",), least=1)

    def __post_init__(self):
        check_bounds(self)


class Toy(SparseMethod):
    """The first few entries of each tensor train."""

    def __init__(self, count: int):
        self.count = count

    def prepare(self, model: nn.Module, head: tuple[str, ...], batches: Batches, combine: Combine = alone) -> Masks:
        masks = {n: torch.zeros_like(model.get_parameter(n), dtype=torch.bool) for n in body_names(model, head)}
        for mask in masks.values():
            mask.view(-1)[: self.count] = True
        return masks


def build(args: MethodArguments, seed: int) -> SparseMethod:
    return Toy(args.own.toy_count)


METHOD = Method("toy", build, "the first entries of each tensor", own=ToyFlags)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register_method(METHOD)
    yield
    del METHODS["toy"]


def words(base: str, rte: Path, out: Path, *more: str) -> list[str]:
    settings = {"task": "rte", "model": base, "data_dir": rte, "method": "toy", "max_steps": 2, "output_dir": out,
                "disable_tqdm": "true", "eval_strategy": "no"}  # fmt: skip
    return [*(word for key, value in settings.items() for word in (f"--{key}", str(value))), *more]


def test_it_trains_with_its_flag(tiny_bert: str, rte: Path, tmp_path: Path):
    result = run(parse(words(tiny_bert, rte, tmp_path / "run", "--toy_count", "2", "--config", "none")))
    diff = SparseDiff.from_pretrained(tmp_path / "run")
    assert {len(indices) for indices in diff.indices.values()} == {2}
    assert result.method == "toy" and result.arguments["toy_count"] == 2 and default_of("toy_count") == 3


def test_help_shows_it_and_its_flag(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        parse(["--help"])
    shown = capsys.readouterr().out
    assert "Method toy:" in shown and "--toy_count TOY_COUNT" in shown and "Entries of each tensor" in shown
    assert "toy (the first entries" in " ".join(shown.split())


def test_its_flag_is_checked(tiny_bert: str, rte: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="--toy_count: must be at least 1, got 0"):
        parse(["--method", "toy", "--toy_count", "0"])
    with pytest.raises(ValueError, match="unknown argument --toy_cont; did you mean --toy_count?"):
        parse(["--method", "toy", "--toy_cont", "1"])
    with pytest.raises(ValueError, match="--toy_count goes with --method toy, not with fish"):
        parse(["--method", "fish", "--toy_count", "1"])
    assert parse(["--method", "toy", "--model", "m", "--task", "rte"]).value("output_dir") == "runs/m/rte/toy/seed42"


def test_workers_that_merge_refuse_it_until_it_says_that_they_may(tiny_bert: str, rte: Path, tmp_path: Path):
    merging = ("--merge_every", "1", "--simulate", "true", "--num_workers", "2")
    with pytest.raises(ValueError, match="workers which train apart would not call: leave `merge_every` out"):
        run(parse(words(tiny_bert, rte, tmp_path / "run", *merging)))
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_name_is_given_once():
    with pytest.raises(ValueError, match="there is a method fish already"):
        register_method(Method("fish", build))
    register_method(METHOD)  # the same again is no mistake
