"""Damaged results, settings and grids: one sentence, or read; never a traceback, never without an end."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from damaged_texts import damaged
from glue_sparse.cli import figure
from glue_sparse.experiments import grids
from glue_sparse.experiments.told import parse
from glue_sparse.records import folder, results
from glue_sparse.reports import pareto, tables
from glue_sparse.reports.figures import grids as figures
from glue_sparse.writing.ending import is_ours
from glue_sparse.writing.sentences import LONGEST, sentence
from pretraining_results import run

HISTORY = [{"step": 1, "explored": 0.1, "expected_density": 0.2, "eval_mlm_loss": 2.0, "grad_norm": None}]
RESULT = asdict(run(
    "tiny", "dense", None, 2.0, 1.0, history=HISTORY, arguments={"learning_rate": 0.1}, learning_rate=0.1,
    communication={"num_workers": 2, "num_merges": 3, "sent_per_worker": 2.0, "dense_sent_per_worker": 4},
    checkpoints={"count": 1, "bytes_mean": 2.0, "dense_bytes": 3, "changed_entries_total": 3},
))  # fmt: skip
CONFIG = {
    "base": {"learning_rate": 0.001, "task": "rte", "seed": 7, "method": "fish", "bf16": True},
    "overrides": [
        {"when": {"task": "rte"}, "set": {"learning_rate": 0.1, "density": 0.1}},
        {"when": {"density": [0.1, 0.2]}, "set": {"num_samples": 8}},
    ],
}
PANEL = {"x": "density", "where": {"method": "fish"}, "line": "row", "level": "random", "names": {"fish": "F"}}
GRID = {
    "title": "t", "base": {"model": "minilm"}, "stages": {"whole": {"method": "dense"}},
    "rows": {"random": {"method": "random", "density": 0.1},
             "fish": {"method": "fish", "sweep": {"density": [0.1, 0.2]}},
             "own": {"method": "fixed_mask", "density": 0.1, "start": "whole"}},
    "columns": {"rte": {"task": "rte"}}, "seeds": [0], "published": ["diff_pruning_table_1"],
    "figure": {"panels": [PANEL]},
}  # fmt: skip
TUNED = {
    "base": {"model": "resnet9"}, "rows": {"random": {"method": "random"}}, "columns": {"rte": {"task": "cifar10"}},
    "seeds": [0], "tune": {"learning_rate": [0.1, 0.2], "hold_out": 5, "seed": 1},
}  # fmt: skip


def _result(path: Path) -> None:
    one = results.read(path)
    tables.rows([one])
    figure.usual_kind(one)
    pareto.of_runs([one])


def _arguments(path: Path) -> None:
    (path.parent / folder.DIVERGED).write_text("it diverged")
    path.rename(path.parent / folder.ARGUMENTS_FILE)
    folder.diverged(path.parent)


def _grid(path: Path) -> None:
    grid = grids.read(path, output_dir=path.parent / "runs")
    if grid.figure:
        figures.check(grid)


READERS: dict[str, tuple[Any, Callable[[Any], str], Callable[[Path], object]]] = {
    "result": (RESULT, json.dumps, _result),
    "arguments": ({"learning_rate": 0.1, "lists": {"a": [1]}}, json.dumps, _arguments),
    "config": (CONFIG, yaml.safe_dump, lambda path: parse(["--config", str(path)])),
    "grid": (GRID, yaml.safe_dump, _grid),
    "tuned": (TUNED, yaml.safe_dump, _grid),
}
"""What is read -> a good one, how it is written, and what reads it."""


@pytest.mark.parametrize(
    "seeds", [range(12), pytest.param(range(12, 1012), marks=pytest.mark.slow)], ids=["few", "many"]
)
@pytest.mark.parametrize("name", READERS)
def test_what_is_damaged_is_read_or_refused_in_one_sentence(tmp_path: Path, name: str, seeds: range):
    good, write, reads = READERS[name]
    path, ends = tmp_path / "damaged", Counter()
    path.write_text(write(good))
    reads(path)
    for seed in seeds:
        path.write_bytes(damaged(good, seed, write))
        try:
            reads(path)
            ends["read"] += 1
        except (ValueError, OSError) as error:
            assert isinstance(error, OSError) or is_ours(error), (seed, error)
            told = sentence(str(error))
            assert told.isprintable() and len(told) <= LONGEST, seed
            ends["refused"] += 1
    assert ends["refused"] > 0 and ends["read"] < len(seeds)
