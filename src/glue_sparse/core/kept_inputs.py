"""What a layer keeps of its input for its weight's gradient: nothing where autograd keeps what the input was computed
from, so that it can be computed again; otherwise the features that the gradient needs.

The output of an activation function, for one, is the largest tensor of a block, and its input is kept anyway.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.nn import functional as F

Pick = Callable[[Tensor], Tensor]
"""Takes some of the last dimension's features."""


def picked(x: Tensor, chosen: Tensor | None) -> Tensor:
    """The chosen features of x [..., n]; x itself for none."""
    if chosen is None:
        return x
    rows = x.reshape(-1, x.shape[-1])  # torch picks the columns of a matrix up to seven times as fast as those of more
    return rows.gather(1, chosen.long().expand(len(rows), -1)).view(*x.shape[:-1], len(chosen))


def _product(node: Any, pick: Pick) -> Tensor | None:
    one, other = node._saved_self, node._saved_other
    if one is None or other is None or one.shape != other.shape:
        return None
    return pick(one) * pick(other)


def _layer_norm(node: Any, pick: Pick) -> Tensor | None:
    """In the order of torch's own steps, so that the same bits come out; in half precision it would lose digits."""
    if len(node._saved_normalized_shape) != 1 or node._saved_input.dtype != torch.float32:
        return None
    y = (pick(node._saved_input) - node._saved_result1).mul_(node._saved_result2)
    if node._saved_weight is None:
        return y
    weight, bias = pick(node._saved_weight), node._saved_bias
    return y.mul_(weight) if bias is None else torch.addcmul(pick(bias), y, weight)


_AGAIN: dict[str, Callable[[Any, Pick], Tensor | None]] = {
    "GeluBackward0": lambda node, pick: F.gelu(pick(node._saved_self), approximate=node._saved_approximate),
    "SiluBackward0": lambda node, pick: F.silu(pick(node._saved_self)),
    **dict.fromkeys(
        ("ReluBackward0", "TanhBackward0", "SigmoidBackward0"), lambda node, pick: pick(node._saved_result)
    ),
    "MulBackward0": _product,
    "NativeLayerNormBackward0": _layer_norm,
}
"""Name of a step of autograd -> its result again, from what it keeps; none where it does not keep enough."""
_NORMS = ("NativeLayerNormBackward0",)
"""They keep weights of their module; and a whole result is mostly shared by layers, each of which would compute it."""


def again(node: Node | None, chosen: Tensor | None) -> Tensor | None:
    """The chosen features of what a step of autograd gave forward; none where they cannot be computed again."""
    make = _AGAIN.get(node.name()) if node is not None else None
    return None if make is None else make(node, lambda x: picked(x, chosen))


def is_kept_anyway(x: Tensor, chosen: Tensor | None, is_sharded: bool) -> bool:
    """Whether `again` will give the chosen features of x in the backward pass, asked where x is used.

    Not inside of hooks for kept tensors (checkpointing, offloading), which may be made to give each one once.

    Args:
        is_sharded: whether the weights of modules may be given back before the backward pass asks for them.
    """
    if torch.compiler.is_compiling() or x.grad_fn is None or x.is_inference():
        return False
    if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return False
    if x.grad_fn.name() in _NORMS and (is_sharded or chosen is None):
        return False
    found = again(x.grad_fn, x.new_zeros(0, dtype=torch.int32, device=x.device))
    return found is not None and found.shape[:-1] == x.shape[:-1]
