"""What merging does to the tasks of finished runs: each scored by the base, by its own diff, and by merged ones."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any, cast, get_args

from torch import nn
from transformers import PrinterCallback, Trainer

from glue_sparse.arguments.flags import build
from glue_sparse.arguments.groups import MergeArguments, ModelArguments, TaskArguments
from glue_sparse.arguments.method import MethodArguments
from glue_sparse.arguments.run import Arguments
from glue_sparse.core.options import MergeRule
from glue_sparse.diffs.algebra import merge, with_head
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.experiments.told import command_line
from glue_sparse.models.of_diff import read_diff
from glue_sparse.records import merged_scores, results
from glue_sparse.records.merged_scores import MergedScore, MergedScores
from glue_sparse.records.results import Result
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.registry import find, load_task
from glue_sparse.writing.words import check_one_of

BASE, ALONE = "base, each task's head", "each task's own diff"


@dataclass(frozen=True)
class Way:
    """A rule of `algebra.merge` with one weight for all diffs."""

    how: MergeRule
    weight: float | None = None
    density: float | None = None

    @classmethod
    def of(cls, text: str) -> "Way":
        """From RULE, RULE:WEIGHT or RULE:WEIGHT:DENSITY, as in `ties:1:0.2`; ValueError for anything else."""
        how, *numbers = text.split(":")
        check_one_of("rule", how, get_args(MergeRule))
        try:
            weight, density = [*(float(number) if number else None for number in numbers), None, None][:2]
        except ValueError as error:
            raise ValueError(f"{text!r} is no way to merge: give RULE:WEIGHT:DENSITY, as in ties:1:0.2") from error
        if len(numbers) > 2:
            raise ValueError(f"{text!r} has too many numbers: give RULE:WEIGHT:DENSITY, as in ties:1:0.2")
        return cls(cast(MergeRule, how), weight, density)

    @property
    def name(self) -> str:
        """In words, as tables show it."""
        told = (("weight", self.weight), ("density", self.density))
        return ", ".join([f"merged: {self.how}", *(f"{name} {value:g}" for name, value in told if value is not None)])

    def merged(self, diffs: Sequence[SparseDiff], base: nn.Module, seed: int) -> SparseDiff:
        """The diffs as one, without heads."""
        weights = None if self.weight is None else [self.weight] * len(diffs)
        return merge(diffs, weights, self.how, base, density=self.density, seed=seed)


@dataclass(frozen=True)
class Run:
    """A finished run: what it found, and what it has trained."""

    result: Result
    diff: SparseDiff
    data_dir: str | None = None

    @cached_property
    def arguments(self) -> Arguments:
        """What it was told, but for where it wrote."""
        flags = command_line().flags
        values = {name: flag.default for name, flag in flags.items()}
        given = {name: value for name, value in self.result.arguments.items() if name in flags}
        values |= {**given, **({"data_dir": self.data_dir} if self.data_dir else {})}
        values |= {"report_to": ["none"], "disable_tqdm": True, "seed": self.result.seed}
        task = build(TaskArguments, values)
        record = find(task.task)
        task.own = record.own and build(record.own, values)
        groups = build(ModelArguments, values), build(MethodArguments, values), build(MergeArguments, values)
        return Arguments(task, *groups, values, given)

    def load(self) -> Task:
        """Its task with its data, and a model that is the base with a new head."""
        return load_task(self.arguments.task, self.arguments.model, self.result.seed)

    def score(self, task: Task, diff: SparseDiff) -> float:
        """Mean of the task's main metric over its validation splits with a diff on the base, as runs compute it."""
        with diff.applied(task.model, check=False), TemporaryDirectory() as folder:
            trainer = Trainer(
                task.model,  # pyright: ignore[reportArgumentType]
                replace(self.arguments, values={**self.arguments.values, "output_dir": folder}).training,
                data_collator=task.collate,
                compute_metrics=task.metrics,
                preprocess_logits_for_metrics=task.preprocess_logits_for_metrics,
            )
            trainer.remove_callback(PrinterCallback)
            data: dict[str, Any] = {**task.evals}
            found = [trainer.evaluate(rows)[f"eval_{task.main_metric}"] for rows in data.values()]
        return mean(found)


def read(folders: Sequence[str], data_dir: str | None = None) -> dict[int, list[Run]]:
    """Seed -> its runs, in the order given.

    Args:
        data_dir: where the data are, where that is not what the runs were told.
    Raises:
        ValueError: a folder without a finished run, a seed with fewer than two tasks, or with one twice.
    """
    found: dict[int, list[Run]] = {}
    for folder in folders:
        result = results.read(Path(folder) / results.FILE_NAME)
        found.setdefault(result.seed, []).append(Run(result, read_diff(folder), data_dir))
    for seed, runs in found.items():
        tasks = [run.result.task for run in runs]
        if len(tasks) < 2 or len({*tasks}) < len(tasks):
            raise ValueError(f"the runs of seed {seed} are of {', '.join(tasks)}: give each of two tasks or more once")
    return found


def scored(
    runs: dict[int, list[Run]], ways: Sequence[Way], path: Path | None, told: Callable[[MergedScore], None]
) -> MergedScores:
    """Score every task in every way that the file does not have yet, and add each score to the file at once.

    Args:
        path: of the file; none: nothing is written.
        told: called with each new score.
    Raises:
        ValueError: diffs that are not of one base, or data or model that are not to be had.
    """
    found = MergedScores() if path is None else merged_scores.read(path)
    for seed, of_seed in runs.items():
        tasks = {run.result.task: run.load() for run in of_seed}
        for run, way, diff, merged in _diffs(of_seed, ways, seed, next(iter(tasks.values())).model):
            task, result = tasks[run.result.task], run.result
            rows = sum(map(len, task.evals.values()))
            one = MergedScore(way, result.task, seed, task.title, task.main_metric, 0.0, rows, diff.digest(), merged)
            if found.has(one):
                continue
            one = replace(one, score=run.score(task, diff))
            base = found.base or run.diff.info.base_model
            found = MergedScores(base, found.also([one]), results.installed_versions())
            told(one)
            if path is not None:
                merged_scores.write(path, found)
    return found


def _diffs(
    runs: Sequence[Run], ways: Sequence[Way], seed: int, base: nn.Module
) -> Iterator[tuple[Run, str, SparseDiff, tuple[str, ...]]]:
    """(run, way in words, the diff to score it with, the tasks merged in it)."""
    diffs = [run.diff for run in runs]
    tasks = tuple(run.result.task for run in runs)
    nothing = merge(diffs, [0.0] * len(diffs), base=base)
    for run in runs:
        yield run, BASE, with_head(nothing, run.diff), ()
    for run in runs:
        yield run, ALONE, run.diff, (run.result.task,)
    for way in ways:
        merged = way.merged(diffs, base, seed)
        for run in runs:
            yield run, way.name, with_head(merged, run.diff), tasks
