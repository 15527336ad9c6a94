"""Sparse networks in a plain PyTorch loop: `sparsify_model`, and an optimizer whose `step` moves active entries."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from glue_sparse.core import budgets, ranks
from glue_sparse.core.active import active_tensors, attach
from glue_sparse.core.finite import check_model
from glue_sparse.core.parametrization import is_attached
from glue_sparse.core.reindexing import take_over
from glue_sparse.methods.moving.explored import explored_state, load_explored
from glue_sparse.methods.moving.mover import Mover
from glue_sparse.methods.moving.rules import RIGL, Rule
from glue_sparse.methods.moving.start import VarianceOf, entry_counts, initial_masks, keep_variance
from glue_sparse.writing.words import check_one_of


def sparsify_model(
    model: nn.Module,
    sparsity: float,
    distribution: str | budgets.Distribution = "uniform",
    *,
    power: float = 1.0,
    densities: Mapping[str, float] | None = None,
    tensors: Sequence[str] = (),
    start: Literal["magnitude", "random"] = "magnitude",
    variance: VarianceOf | None = None,
    seed: int = 0,
    block_size: int = 1,
) -> None:
    """Make a model sparse in place: from here on inactive entries are zero, and stay so under any optimizer.

    Sparse become the matrices inside the layers of a Hugging Face transformer, and the weights of all linear,
    convolutional, recurrent and attention layers of other networks, unless they need no gradient. `detach` gives an
    ordinary model back.

    Args:
        model: any module; changed in place.
        sparsity: share of the entries of these tensors that is zero, in [0, 1).
        distribution: `uniform`, `first_dense`, `er`, `erk` or a function; as for `DropGrow`, and so are `power`,
            `densities`, `tensors`, `start`, `variance` and `seed`.
        block_size: side of the square tiles that are active as a whole; a rule that moves them has the same.
    Raises:
        ValueError: sparsity out of range, an unknown distribution, a tensor that would keep nothing, or one that has
            numbers which are not finite.
    """
    budgets.check_sparsity(sparsity)
    if variance is not None:
        check_one_of("variance", variance, get_args(VarianceOf))
    if is_attached(model):
        raise ValueError("this model already has active entries; call detach(model) first")
    check_model(model)
    counts = entry_counts(model, (), 1 - sparsity, distribution, power, densities or {}, tensors, block_size)
    attach(model, initial_masks(model, counts, seed, start, block_size), "zero", block_size)
    if variance:
        keep_variance(model, variance)


class SparseOptimizer(torch.optim.Optimizer):
    """An optimizer whose `step` trains the active entries of a model and, at times, moves them.

    It stands for the optimizer given: learning-rate schedulers, `param_groups`, `add_param_group` and closures work.
    To resume, make the model sparse again, then load the model's `state_dict`, then this one's. In half precision use
    bfloat16: a GradScaler does not scale back the gradients of inactive entries.

    Args:
        optimizer: any optimizer of the model's parameters. One that was built before `sparsify_model` gets the active
            entries in the place of their tensors.
        model: what `sparsify_model` made sparse.
        rule: `STATIC`, `SET`, `SNFS`, `RIGL`, or a `Rule` of your own.
        num_steps: calls of `step` in the whole training, of which schedules are fractions.
        seed: for what is random.
    Raises:
        ValueError: the model is not sparse, the optimizer does not train its active entries, `num_steps` is no positive
            number, or entries would go from tensor to tensor under DDP, which cannot follow that.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, model: nn.Module, rule: Rule = RIGL, *, num_steps: int, seed: int = 0
    ):
        # no super().__init__(): state and groups are those of the optimizer that this one stands for
        self.optimizer, self.model = optimizer, model
        self.num_done = 0
        """Calls of `step` so far."""
        if not any(True for _ in active_tensors(model)):
            raise ValueError("this model has no active entries: call sparsify_model(model, ...) first")
        if not isinstance(num_steps, int) or num_steps < 1:
            raise ValueError(f"num_steps is how often step() will be called in the whole training, not {num_steps!r}")
        if rule.redistribute and ranks.count() > 1:
            raise ValueError("DDP cannot follow tensors whose number of active entries changes: use SparseTrainer, or "
                             "a rule without redistribute")  # fmt: skip
        take_over(optimizer, model)
        self.mover = Mover(rule, num_steps, seed)
        self.mover.before_step(model, 0)

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Those of the optimizer."""
        return self.optimizer.param_groups

    @property
    def state(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the optimizer."""
        return self.optimizer.state

    @property
    def defaults(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Those of the optimizer."""
        return self.optimizer.defaults

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore
        """Take an optimizer step, move entries, or both, as the rule says; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not self.mover.gradients_ready(self.model, self.num_done, self.optimizer):
            if closure is None:
                self.optimizer.step()
            else:
                self.optimizer.step(_Replayed(closure, loss))
        self.mover.after_step(self.model, self.num_done, self.optimizer)
        self.num_done += 1
        self.mover.before_step(self.model, self.num_done)
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As in any optimizer; dense gradients of entries that may grow start anew, too."""
        self.optimizer.zero_grad(set_to_none)
        for _, entries in active_tensors(self.model):
            entries.watch(entries.is_watched)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in any optimizer."""
        self.optimizer.add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The optimizer's state, the number of steps, and what moving entries needs."""
        moving = {**self.mover.state(), **explored_state(self.model)}
        return {"optimizer": self.optimizer.state_dict(), "num_done": self.num_done, "moving": moving}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave; the model's own state has to be loaded first.

        Raises:
            ValueError: the state is of another model or optimizer, or the model's state has not been loaded.
        """
        if state_dict.keys() != {"optimizer", "num_done", "moving"}:
            raise ValueError("this is not the state of a SparseOptimizer")
        for old, group in zip(state_dict["optimizer"]["param_groups"], self.param_groups, strict=True):
            for number, parameter in zip(old["params"], group["params"], strict=True):
                self._check_shapes(parameter, state_dict["optimizer"]["state"].get(number, {}))
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.num_done = state_dict["num_done"]
        self.mover.load_state(self.model, state_dict["moving"])
        load_explored(self.model, state_dict["moving"])
        self.mover.before_step(self.model, self.num_done)

    def _check_shapes(self, parameter: Tensor, state: dict[str, Any]) -> None:
        for key, value in state.items():
            if isinstance(value, Tensor) and value.dim() == 1 == parameter.dim() and value.shape != parameter.shape:
                raise ValueError(f"{key} of the stored state has {len(value):,} entries, and {len(parameter):,} are "
                                 "active: load the model's state_dict before the optimizer's")  # fmt: skip

    def __getattr__(self, name: str) -> Any:
        """Hooks, and what else the optimizer has, are those of the optimizer that this one stands for."""
        if name == "optimizer":
            raise AttributeError(name)
        return getattr(self.optimizer, name)

    def __getstate__(self) -> dict[str, Any]:
        """Raises ValueError: a copy would train the same model."""
        raise ValueError("a SparseOptimizer belongs to its model and cannot be copied: use state_dict()")

    def __repr__(self) -> str:
        return f"SparseOptimizer({self.optimizer!r})"


class _Replayed:
    """A closure whose first call has been made already: optimizers that call it once do not compute twice."""

    def __init__(self, closure: Callable[[], Any], loss: Any):
        self.closure, self.loss, self.is_first = closure, loss, True

    def __call__(self) -> Any:
        if self.is_first:
            self.is_first = False
            return self.loss
        return self.closure()
