"""Metrics that a user asks for beside a task's own, by `evaluate`: a name of the hub, or a script of one's own."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import Any

from transformers import EvalPrediction

from glue_sparse.records.scales import scale_of
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.compared import Compared, Pairs
from glue_sparse.writing.words import listed, shortened

logger = logging.getLogger(__name__)

_OWN = "evaluate-metric/"
"""On the hub: where the metrics of `evaluate` itself lie, which need no owner before their name."""
_TAKEN = ("loss", "runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
"""What the Trainer reports of each evaluation."""


@dataclass(frozen=True)
class Asked:
    """A metric as it was asked for: NAME, OWNER/NAME or PATH, and perhaps :KEY=VALUE,KEY=VALUE after it.

    Attributes:
        text: all of it.
        options: further arguments of the metric.
    """

    text: str
    place: str
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str) -> "Asked":
        """Read it; ValueError for an argument without a name or a value."""
        place, colon, told = text.rpartition(":")
        if not colon or Path(text).exists():
            return cls(text, text)
        pairs = [word.partition("=") for word in told.split(",")]
        for key, _, value in pairs:
            if not key.isidentifier() or not value:
                raise ValueError(f"`metric` {shortened(text)} has {key[:40]!r} in its arguments, which are KEY=VALUE "
                                 "with commas between, as in f1:average=macro")  # fmt: skip
        return cls(text, place, {key: _value(value) for key, _, value in pairs})

    def __str__(self) -> str:
        return f"`metric` {shortened(self.text)}"

    @property
    def stem(self) -> str:
        """The metric's own name."""
        return Path(self.place).name.removesuffix(".py")

    def called(self, key: str) -> str:
        """What a value is recorded as: `macro_f1` of f1:average=macro, `squad_f1` of squad.

        Its last word tells the scale (`records/scales.py`), so arguments come first.
        """
        words = [*map(_word, self.options.values()), self.stem, *([] if key == self.stem else [key])]
        return "_".join(words)


def _value(text: str) -> Any:
    """A number, true, false or null as JSON has them; any other text is itself."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if value is None or isinstance(value, int | float) else text


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True)
class Scorer:
    """A metric that has been loaded and tried.

    Attributes:
        names: its own name of each number that it gives -> what that is recorded as.
    """

    asked: Asked
    module: Any
    names: dict[str, str]

    def __call__(self, pairs: Pairs) -> dict[str, float]:
        """Its numbers; what is undefined is 0 where larger is better, as an official correlation is.

        Raises:
            ValueError: it fails, gives what no result can hold, or does not give what it gave before.
        """
        if not all(math.isfinite(one) for one in pairs[0] if isinstance(one, float)):
            return dict.fromkeys(self.names.values(), math.nan)  # the model has overflown, which the run tells
        found = _numbers(self.asked, _computed(self.asked, self.module, pairs))
        if lacking := self.names.keys() - found.keys():
            raise ValueError(f"{self.asked} gave {listed(sorted(lacking))} before training and does not now: a metric "
                             "has to give the same numbers each time")  # fmt: skip
        return {name: self._defined(name, found[key]) for key, name in self.names.items()}

    def _defined(self, name: str, value: float) -> float:
        _check_score(self.asked, name, value)
        if math.isnan(value):
            logger.warning("%s is undefined for these predictions, and is told as 0", name)
            return 0.0
        return value


def _check_score(asked: Asked, name: str, value: float) -> None:
    """Raise a ValueError for what is not finite, but for an undefined score of which larger is better."""
    if math.isinf(value) or math.isnan(value) and scale_of(name).smaller_is_better:
        raise ValueError(f"{asked} gives {name} {value}, which is no score: a metric has to be finite, whatever is "
                         "predicted")  # fmt: skip


def with_asked(task: Task, texts: Sequence[str], is_official: bool, trusts: bool) -> Task:
    """The task with further metrics, each of which has been tried on a few examples.

    Args:
        texts: see `Asked`.
        is_official: whether the task's own metric stays the main one; else the first of these takes its place.
        trusts: whether code of others on the hub, beside that of `evaluate`, may run; scripts that are here may.
    Raises:
        ValueError: a metric that cannot be had, fails, gives no number, or is called as another.
    """
    if not texts:
        return task
    if (compared := task.compared) is None:
        raise ValueError(f"`metric` compares classes, numbers or answers, and those are not what `task` {task.name} "
                         "predicts: leave it out")  # fmt: skip
    own = task.metric_names or (task.main_metric,)
    taken, scorers = {*own, *_TAKEN}, list[Scorer]()
    for asked in map(Asked.of, texts):
        scorers.append(_tried(asked, _loaded(asked, trusts), compared))
        for name in scorers[-1].names.values():
            if name in taken:
                raise ValueError(f"{asked} gives {name}, which is there already: leave it out, or rename its script")
            taken.add(name)
    names = [name for scorer in scorers for name in scorer.names.values()]

    def score(evaluated: EvalPrediction) -> dict[str, float]:
        found, pairs = task.metrics(evaluated), compared.of(evaluated)
        for scorer in scorers:
            found = {**found, **scorer(pairs)}
        return found

    main = task.main_metric if is_official else names[0]
    return replace(task, metrics=score, main_metric=main, metric_names=(*own, *names))


def _loaded(asked: Asked, trusts: bool) -> Any:
    place = asked.place
    script = Path(place) if place.endswith(".py") else Path(place, f"{asked.stem}.py")
    if not script.is_file():
        if place.endswith(".py") or place.startswith((".", "/")) or place.count("/") > 1:
            raise ValueError(f"{asked} is no metric script: there is no file {shortened(script)}")
        if "/" in place and not trusts and not place.startswith(_OWN):
            raise ValueError(f"{asked} is code of others, which is not run unasked: read it, and give "
                             "`trust_remote_code` true if you trust it")  # fmt: skip
    import evaluate  # seconds, for those who ask

    try:
        return evaluate.load(str(script) if script.is_file() else place, keep_in_memory=True)
    except OSError as error:  # no such metric, or no network
        raise ValueError(f"{asked} is neither a script here nor to be had from the hub: give the path of a metric "
                         "script, such as metrics/mine.py") from error  # fmt: skip
    except (Exception, SystemExit) as error:
        raise ValueError(f"{asked} cannot be loaded, as a script with one class of `evaluate.Metric` can: "
                         f"{_reason(error)}") from error  # fmt: skip


def _tried(asked: Asked, module: Any, compared: Compared) -> Scorer:
    """Score the example, as a metric that fails after an epoch is of no use."""
    features = module.features[0] if isinstance(module.features, list) else module.features
    wanted = str(getattr(features.get("predictions"), "dtype", ""))
    if wanted.startswith(("int", "uint")) and isinstance(compared.example[0][0], float):
        raise ValueError(f"{asked} takes whole numbers, as classes are, and would cut off the "
                         "fractions of a regression: give another")  # fmt: skip
    found = _numbers(asked, _computed(asked, module, compared.example))
    names = {key: asked.called(key) for key in found}
    for key, name in names.items():
        _check_score(asked, name, found[key])
    return Scorer(asked, module, names)


def _computed(asked: Asked, module: Any, pairs: Pairs) -> Any:
    try:
        return module.compute(predictions=pairs[0], references=pairs[1], **asked.options)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{asked} fails on what this task predicts: {_reason(error)}; its arguments follow it, as in "
                         f"{shortened(Path(asked.place).name, 40)}:average=macro") from error  # fmt: skip


def _reason(error: BaseException) -> str:
    words = " ".join(str(error).split()).rstrip(".")
    return (words if len(words) <= 130 else f"{words[:130]}...") or type(error).__name__


def _numbers(asked: Asked, values: Any) -> dict[str, float]:
    """The numbers among what a metric gives; ValueError where there is none."""
    named = values if isinstance(values, Mapping) else {asked.stem: values}
    plain = {str(key): value.item() if getattr(value, "ndim", 1) == 0 else value for key, value in named.items()}
    found = {key: float(value) for key, value in plain.items() if isinstance(value, Real)}  # 0 axes: of NumPy, a tensor
    if not found:
        raise ValueError(f"{asked} gives no number ({type(values).__name__}), and a score is one: give it arguments, "
                         "or another metric")  # fmt: skip
    return found
