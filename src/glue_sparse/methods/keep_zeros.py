"""Fine-tune a model that is already pruned and keep its zeros: what is zero stays so, and everything else trains."""

from collections.abc import Sequence

from torch import Tensor, nn

from glue_sparse.core.active import attach
from glue_sparse.core.masks import Masks
from glue_sparse.core.names import match
from glue_sparse.core.params import body_names, encoder_matrices
from glue_sparse.methods.base import Batches, Combine, SparseMethod, alone

Pattern = tuple[int, int]
"""(kept, group): at most so many of every group of consecutive inputs are not zero."""


def attach_zeros(
    model: nn.Module, *, tensors: Sequence[str] = (), pattern: Pattern | None = None, masks: Masks | None = None
) -> Masks:
    """From here on only what is not zero in a pruned model trains, and its zeros stay zero whatever the optimizer does.

    Args:
        model: any module with pruned matrices; changed in place, as by `attach`. Tensors without a zero train whole.
        tensors: shell patterns of the pruned tensors, by default those of two dimensions or more that hold a zero.
        pattern: (kept, group) that each of them must have along its inputs: (2, 4) for 2:4.
        masks: what a pruning tool says is kept, instead of the weights themselves.
    Returns:
        The masks of the tensors that hold zeros, true where an entry trains.
    Raises:
        ValueError: as `zeros` and `attach`.
    """
    found = zeros(model, tensors=tensors, pattern=pattern, masks=masks)
    attach(model, found, "zero")
    return found


def zeros(
    model: nn.Module, *, tensors: Sequence[str] = (), pattern: Pattern | None = None, masks: Masks | None = None
) -> Masks:
    """Masks of what is not zero, for the tensors of a model that were pruned.

    Args:
        model: any module. Kept are the zeros of its tensors of two dimensions or more that train; a bias or a norm may
            well be zero before it has trained. Embeddings alone do not make a model pruned.
        tensors: shell patterns of those to look at instead.
        pattern: (kept, group) that each pruned matrix, so no embedding, must have along its inputs: (2, 4) for 2:4.
        masks: what a pruning tool says is kept, as `core.bitmasks.read` does, instead of the weights themselves.
    Raises:
        ValueError: there is no such tensor, one does not have the pattern, or a mask has weights that are not zero
            outside of it.
    """
    names = match(body_names(model, ()), tuple(tensors)) if tensors else body_names(model, ())
    parameters = {name: p for name, p in model.named_parameters() if name in set(names) and p.requires_grad}
    tables = _tables(model)
    if masks is None:
        found = {n: p.detach() != 0 for n, p in parameters.items() if tensors or p.dim() > 1}
        for name, padding in tables.items():
            if name in found and padding is not None:
                found[name][padding] = True  # nobody has pruned it
        found = {name: mask for name, mask in found.items() if not mask.all()}
    else:
        found = {name: mask for name, mask in masks.items() if not tensors or name in parameters}
        for name, mask in found.items():
            _check_kept(name, mask, parameters)
    pruned = [name for name in found if tensors or name not in tables]
    if not pruned:
        raise ValueError("no matrix of this model holds a zero: prune it first, or name the pruned tensors by "
                         "`tensors`")  # fmt: skip
    if pattern is not None:
        axes = _input_axes(model)
        for name in pruned:
            check_pattern(name, found[name].movedim(axes.get(name, -1), -1), pattern)
    return found


def check_pattern(name: str, mask: Tensor, pattern: Pattern) -> None:
    """Raise a ValueError where a mask, [..., inputs], keeps more than `pattern` allows of consecutive inputs."""
    kept, group = pattern
    width = mask.shape[-1]
    if width % group:
        raise ValueError(f"{name} has {width} inputs, which groups of {group} do not divide: leave it out by `tensors`")
    most = int(mask.reshape(-1, group).sum(1).max())
    if most > kept:
        raise ValueError(f"{name} keeps {most} of a group of {group}, and `pattern` {kept}:{group} allows {kept}: it "
                         "was pruned otherwise, or leave it out by `tensors`")  # fmt: skip


def _tables(model: nn.Module) -> dict[str, int | None]:
    """Embeddings -> the row that stands for padding. Rows of tokens that nobody uses may be zero in any model."""
    found = ((path, module) for path, module in model.named_modules() if isinstance(module, nn.Embedding))
    return {f"{path}.weight".lstrip("."): module.padding_idx for path, module in found}


def _input_axes(model: nn.Module) -> dict[str, int]:
    """Of the tensors whose inputs may not come last."""
    try:
        return encoder_matrices(model)
    except ValueError:  # no transformer
        return {}


def _check_kept(name: str, mask: Tensor, parameters: dict[str, nn.Parameter]) -> None:
    if name not in parameters:
        raise ValueError(f"the mask names {name}, which the model does not have, or which is frozen")
    weight = parameters[name].detach()
    if mask.shape == weight.shape and (outside := int((weight[~mask.to(weight.device)] != 0).sum())):
        raise ValueError(f"{outside:,} weights of {name} are not zero where its mask keeps none: load the pruned model")


class KeepZeros(SparseMethod):
    """Train what is not zero in a pruned model, see `attach_zeros`.

    Args:
        tensors, pattern, masks: see `zeros`.
    """

    inactive = "zero"
    needs_data = False
    refuses_merging = "pruned models cannot train as workers that merge"

    def __init__(
        self, *, tensors: Sequence[str] = (), pattern: Pattern | None = None, masks: Masks | None = None
    ):
        self.tensors, self.pattern, self.masks = tensors, pattern, masks

    def prepare(
        self, model: nn.Module, head: tuple[str, ...], batches: Batches, combine: Combine = alone
    ) -> Masks:
        """See `SparseMethod.prepare`; ValueError for a model that was not pruned, see `zeros`."""
        found = zeros(model, tensors=self.tensors, pattern=self.pattern, masks=self.masks)
        return {name: mask for name, mask in found.items() if name not in head}
