"""How a metric is told and compared: in percent, where larger is better, or as a loss or an error, where smaller is."""



from collections.abc import Iterable
from dataclasses import dataclass
from math import inf, isnan

from glue_sparse.records.results import Result


@dataclass(frozen=True)
class Scale:
    """What turns a metric's value into the number that tables and figures show, and into one to choose by.

    Attributes:
        factor: shown number of a value of 1.
        digits: after the point.
        unit: of the shown numbers, for a sentence.
        sign: behind the metric on an axis.
    """

    factor: float
    digits: int
    unit: str
    sign: str = ""
    smaller_is_better: bool = False

    def shown(self, value: float) -> float:
        """The number to show for a value."""
        return self.factor * value

    def text(self, number: float) -> str:
        """A shown number with its digits."""
        return f"{number:.{self.digits}f}"

    def worth(self, value: float) -> float:
        """Larger is better, whatever the metric; a value that is no number is worst."""
        return -inf if isnan(value) else -value if self.smaller_is_better else value


PERCENT = Scale(100, 2, "percent", ", %")
LOSS = Scale(1, 3, "nats, smaller is better", smaller_is_better=True)
ERROR = Scale(1, 3, "its own unit, smaller is better", smaller_is_better=True)
_ERRORS = {"error", "mse", "rmse", "mae", "mape", "smape", "mase", "wer", "cer", "ter", "perplexity", "brier"}
"""Last words of names of metrics that count mistakes, as `evaluate` calls them."""


def scale_of(metric: str) -> Scale:
    """The scale of a metric by its name; an empty name is of a score in percent."""
    if is_loss(metric):
        return LOSS
    return ERROR if metric.removesuffix("_score").rpartition("_")[2] in _ERRORS else PERCENT


def scales_of(found: Iterable[Result]) -> list[Scale]:
    """The scales of several runs, each once; percent where there is no run."""
    return list(dict.fromkeys(scale_of(result.main_metric) for result in found)) or [PERCENT]


def is_loss(name: str) -> bool:
    """Whether a metric is a loss: smaller is better, and it is no share of a hundred."""
    return name.endswith("loss")
