"""What a classifier says of its outputs beside the head's tensors; losses and names of classes are read from it."""

from typing import Any

from torch import nn

from glue_sparse.diffs.identity import DiffInfo

_FACTS = ("problem_type", "id2label", "label2id")
"""Of a configuration of transformers."""


class Outputs:
    """The facts of a model's outputs, which follow the head that is in use.

    Transformers reads the loss from `config.problem_type`, and notes it there at the first one: a regression would go
    on as a classification whose loss is zero. `num_labels` of the model and its configuration shape the logits.

    Args:
        model: of transformers, or another, which then has no such facts.
    """

    def __init__(self, model: nn.Module):
        self._config: Any = getattr(model, "config", None)
        count = getattr(self._config, "num_labels", None)
        self._counting = [m for m in model.modules() if m.__dict__.get("num_labels", ()) == count]
        self._own: dict[str, Any] | None = None
        """Those of the base while others are shown."""

    def show(self, info: DiffInfo, count: int | None) -> None:
        """Those of a task.

        Args:
            info: of its diff.
            count: its outputs, where its head says them.
        """
        if self._config is None:
            return
        if self._own is None:
            self._own = {key: found for key, found in vars(self._config).items() if key in _FACTS}
        own = self._own.get("id2label") or {}
        count = count or info.num_labels or len(own)
        names = info.labels if len(info.labels) == count else tuple(f"LABEL_{index}" for index in range(count))
        kind = "regression" if count == 1 else "single_label_classification" if info.labels else None
        if self._own.get("problem_type") == "multi_label_classification" and count == len(own):
            kind = self._own["problem_type"]
        self._set(kind, dict(enumerate(names)), {label: index for index, label in enumerate(names)})

    def show_own(self) -> None:
        """Those of the base."""
        if self._own is not None:
            self._set(*(self._own.get(key) for key in _FACTS))
            self._own = None

    def _set(self, kind: str | None, names: dict[int, str] | None, numbers: dict[str, int] | None) -> None:
        found: dict[str, Any] = {"problem_type": kind, "id2label": names, "label2id": numbers}
        held = vars(self._config)  # its own setters check each fact alone, and take as long as thousands of entries
        held.update({key: found[key] for key in self._own or {}})
        for module in self._counting:
            module.__dict__["num_labels"] = len(names or ())
