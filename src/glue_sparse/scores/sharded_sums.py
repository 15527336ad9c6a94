"""Sums over the examples of all ranks, of gradients or of their powers, on a model that `fully_shard` has cut.

FSDP2 gathers a group of layers when it is needed, and hands each rank the sum of all ranks' gradients of its part. The
operation that makes this sum is exchanged here, so that each rank's gradient is squared before they are added: with one
example on each rank, these are squared gradients of single examples.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from glue_sparse.core import ranks
from glue_sparse.core.batches import Batch, on_device
from glue_sparse.core.recompute import recomputed
from glue_sparse.core.shards import parts_of
from glue_sparse.scores.passing import differentiating, grads_kept, taken_as_they_come
from glue_sparse.scores.sums import Sums

_EXACT = (
    "gradients of shards are squared and added in float32, not in {}: make the sharded parameters float32, and let "
    "`fully_shard` compute in a shorter type by `MixedPrecisionPolicy(param_dtype=torch.bfloat16, "
    "reduce_dtype=torch.float32)`"
)
_NEEDED = (
    "set_custom_reduce_scatter", "set_gradient_divide_factor", "set_force_sum_reduction_for_comms",
    "set_reduce_scatter_unused_params",
)  # fmt: skip


_reduce_scatter: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor  # its older name


class _Added:
    """Sums over ranks in the place of FSDP2's own (its interface `ReduceScatter`): of powers, of those that count.

    Args:
        power: replaces each rank's gradients, in place.
    """

    def __init__(self, power: Callable[[Tensor], Any]):
        self.power = power
        self.counts = True
        """Whether this rank's gradients are of an example of its own."""

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Memory for what is sent, or for what comes."""
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: dist.ProcessGroup, op: Any, async_op: bool = False
    ) -> Any:
        if input_tensor.dtype != torch.float32:
            raise ValueError(_EXACT.format(input_tensor.dtype))
        if self.counts:
            self.power(input_tensor)
        else:
            input_tensor.zero_()
        return _reduce_scatter(output_tensor, input_tensor, op, group, async_op)


def sharded_sums(
    model: nn.Module, names: tuple[str, ...], items: Iterable[Batch], loss: Callable[[nn.Module, Batch], Tensor],
    dtype: torch.dtype, power: Callable[[Tensor], Any] = lambda gradient: gradient,
) -> dict[str, Tensor]:  # fmt: skip
    """Sums, over the items of all ranks, of a power of the gradients of their losses; all ranks call this together.

    Ranks may have different numbers of items: one that has no more goes along, and adds nothing.

    Args:
        model: cut by `fully_shard`, with float32 parameters; how it reduces gradients is changed for good.
        names: of parameters; those that require no gradient have 0.
        items: this rank's.
        loss: of an item.
        dtype: in which float32 sums are kept between items.
        power: of the gradients of an item, in place.
    Returns:
        Parameter name -> sums, of the shape of this rank's part.
    Raises:
        ValueError: a model that lies on one rank, another type than float32, or a PyTorch that cannot do it.
    """
    _check(model, names)
    totals, added = Sums.zeros(model, names, dtype), _Added(power)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            _exchange(module, added)
    with (
        differentiating(model, names) as parameters, grads_kept(parameters.values()),
        taken_as_they_come(parameters, totals.add), recomputed(model),
    ):  # fmt: skip
        for item, added.counts in _alike(items if parameters else ()):
            loss(model, on_device(item, model)).backward()
    return totals.tensors


def _check(model: nn.Module, names: tuple[str, ...]) -> None:
    missing = [needed for needed in _NEEDED if not hasattr(FSDPModule, needed)]
    if missing:
        raise ValueError(f"this PyTorch ({torch.__version__}) has no `FSDPModule.{missing[0]}`: install a newer one, "
                         "or choose on the whole model")  # fmt: skip
    for name, part in parts_of(model, names).items():
        if part.num_parts == 1:  # FSDP2 calls nothing then
            raise ValueError(f"{name} lies whole on each rank: choose on a model that is not sharded")
        if (held := model.get_parameter(name).dtype) != torch.float32:
            raise ValueError(_EXACT.format(held))


def _exchange(module: FSDPModule, added: Any) -> None:
    module.reshard()  # a forward pass without a backward pass leaves it whole, with other parameters
    module.set_custom_reduce_scatter(added)
    module.set_gradient_divide_factor(1.0)
    module.set_force_sum_reduction_for_comms(True)
    module.set_reduce_scatter_unused_params(True, recurse=False)  # experts that an example does not reach


def _alike(items: Iterable[Batch]) -> Iterator[tuple[Batch, bool]]:
    """As often on every rank: an item of its own, or where it has no more, any one; and whether it is its own."""
    own, spare = iter(items), None
    while True:
        with ranks.together():
            item = next(own, None)
        if not any(ranks.everyones(item is not None)):
            return
        if spare is None:
            sent = item and {key: value.cpu() if isinstance(value, Tensor) else value for key, value in item.items()}
            spare = next(one for one in ranks.everyones(sent) if one is not None)
        yield (spare, False) if item is None else (item, True)
