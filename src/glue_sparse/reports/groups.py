"""Finished runs of one setting under several seeds, as one group with a name; loads no model."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from glue_sparse.experiments.told import default_of
from glue_sparse.records import results
from glue_sparse.records.results import Result
from glue_sparse.records.scales import is_loss

_NAMED = {"model", "from_scratch", "method", "density", "seed", results.START}
"""Settings that the name of a group has anyway, and what differs between its seeds."""
_ALWAYS = "block_size"
"""Named wherever a group of the same model and method has it."""


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed.

    Attributes:
        model: without the seed of its random weights.
        density: none for methods without a budget.
        settings: all others that were given, as results have them.
    """

    model: str
    method: str
    density: float | None
    settings: dict[str, Any]
    found: tuple[Result, ...]

    @property
    def is_dense(self) -> bool:
        return self.method == "dense"

    @property
    def name(self) -> str:
        """Model, method and sparsity."""
        return f"{self.model} {self.method}" + ("" if self.density is None else f" s={1 - self.density:.4g}")

    @property
    def loss(self) -> float:
        """Mean over seeds of the mean over validation splits."""
        return mean(result.score for result in self.found)

    @property
    def std(self) -> float | None:
        """Sample standard deviation of the loss over seeds; none for a single one."""
        return stdev(result.score for result in self.found) if len(self.found) > 1 else None

    def flops(self, key: str) -> float:
        """Mean over seeds of what the runs counted.

        Raises:
            ValueError: a run that did not count it.
        """
        for result in self.found:
            if result.flops.get(key, 0) <= 0:
                raise ValueError(f"{self.name}, seed {result.seed}, counted no {key}: only runs of a BERT from "
                                 "masked words do, so leave the others out or run them again")  # fmt: skip
        return mean(result.flops[key] for result in self.found)


def groups(found: Sequence[Result]) -> list[Group]:
    """Runs scored by a loss, by setting, in the order of their first run.

    Raises:
        ValueError: no runs, runs of different data or metrics, scores that are no losses, a seed that is there twice.
    """
    _check(found)
    by_setting: dict[str, list[Result]] = {}
    for result in found:
        by_setting.setdefault(repr(_key(result)), []).append(result)
    grouped = [_group(runs) for runs in by_setting.values()]
    for group in grouped:
        (seed, count), *_ = Counter(result.seed for result in group.found).most_common(1)
        if count > 1:
            raise ValueError(f"seed {seed} of {group.name} is there {count} times: give each folder of runs once")
    return grouped


def _check(found: Sequence[Result]) -> None:
    if not found:
        raise ValueError("there is no finished run to show")
    for result in found:
        if not is_loss(result.main_metric):
            raise ValueError(f"{result.title} is scored by {result.main_metric}, which is no loss: leave its runs out")
        if result.score <= 0:
            raise ValueError(f"{result.title} has a {result.main_metric} of {result.score:g}, which has no logarithm: "
                             "leave its runs out")  # fmt: skip
    first = found[0]
    for result in found:
        if (result.title, result.main_metric) != (first.title, first.main_metric):
            one, other = (f"{run.title} ({run.main_metric})" for run in (first, result))
            raise ValueError(f"runs of {one} and of {other} cannot be compared: give those of one data set")
        for key in result.source.keys() | first.source.keys():
            if result.source.get(key) != first.source.get(key):
                one, other = first.source.get(key), result.source.get(key)
                raise ValueError(f"runs on different data cannot be compared, and {key} is {one} in one of them and "
                                 f"{other} in another: give those of one data set")  # fmt: skip


def _model(result: Result) -> str:
    return re.sub(r"@scratch[0-9]+$", "", result.model)


def _key(result: Result) -> tuple[str, str, float | None, dict[str, Any]]:
    given = {key: value for key, value in results.settings(result.arguments).items() if key not in _NAMED}
    return _model(result), result.method, result.density, given


def _group(runs: Sequence[Result]) -> Group:
    return Group(*_key(runs[0]), tuple(runs))


def names(grouped: Sequence[Group]) -> list[str]:
    """The name of each group, with its size of tiles and what differs between groups of its model and method."""
    texts = []
    for group in grouped:
        others = [other for other in grouped if (other.model, other.method) == (group.model, group.method)]
        keys = sorted({key for other in others for key in other.settings})
        differing = [k for k in keys if k == _ALWAYS or len({repr(other.settings.get(k)) for other in others}) > 1]
        told = {key: group.settings[key] if key in group.settings else default_of(key) for key in differing}
        # a flag without a value has a default that depends on the method
        texts.append(" ".join([group.name, *(f"{k}={value}" for k, value in told.items() if value is not None)]))
    return texts
