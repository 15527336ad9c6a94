"""The gradient of a whole tensor of which only some entries train, for rules that grow entries by it."""

from typing import Any

from torch import Tensor, nn

from glue_sparse.core import operators
from glue_sparse.core.parametrization import Parametrization


class Watching(Parametrization):
    """Base of a parametrization that can keep the gradient of its whole tensor.

    Attributes:
        values: [k] parameter.
        dense_gradient: with `watch`, the gradient of the whole tensor, float32, summed over backward passes as
            `values.grad` is.
    """

    values: nn.Parameter
    dense_gradient: Tensor | None = None
    _watch: Any = None
    _token: Tensor | None = None
    _passing: Tensor | None = None

    @property
    def is_watched(self) -> bool:
        """Whether the dense gradient is kept."""
        return self._token is not None

    def watch(self, on: bool) -> None:
        """Keep the dense gradient of the coming backward passes in `dense_gradient`, or drop it and stop.

        Called again it starts a new sum, and so does a backward pass that finds no `values.grad`.
        """
        self.dense_gradient = self._passing = None
        if self._watch is not None:
            self._watch.remove()
        watches = on and len(self.values) > 0 and self.values.requires_grad
        self._watch = self.values.register_hook(self._finish_pass) if watches else None
        self._token = operators.token_of(self) if watches else None

    def seen(self, gradient: Tensor) -> None:
        """Take note of the dense gradient of one use of the weight in a backward pass."""
        if self.is_watched:
            part = gradient.detach().float()
            self._passing = part.clone() if self._passing is None else self._passing.add_(part)

    def _finish_pass(self, gradient: Tensor) -> None:
        """Called once per backward pass, when the gradients of all uses are there and before `values.grad` changes."""
        assert self._passing is not None
        if self.dense_gradient is not None and self.values.grad is not None:
            self.dense_gradient += self._passing
        else:
            self.dense_gradient = self._passing
        self._passing = None

    def __getstate__(self) -> dict[str, Any]:
        """For copies, which watch nothing."""
        return {**super().__getstate__(), **dict.fromkeys(("_watch", "_token", "_passing", "dense_gradient"))}
