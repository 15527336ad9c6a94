"""How the gradient of each example follows from one operation: rules, each derived for one function of torch.

A rule belongs to an operation, `F.linear` for instance, and not to a type of module: whatever a module does around it
happens outside the rule. The idea is Goodfellow's (2015, arXiv 1510.01799).
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from glue_sparse.scores.parts import Explicit, Outer, Part, Replayed, Rows

Make = Callable[[Tensor], Part]
"""Gradient of an operation's output -> the part of one of the tensors that it used."""
Found = list[tuple[Tensor | None, Make]]
"""The tensors that an operation used in the places its rule knows, and how to make their parts."""


@dataclass(frozen=True)
class Call:
    """One call of an operation on a batch.

    Attributes:
        num_examples: n, the examples of the batch.
        tokens: numbers of tokens that an example of the batch may have: the second dimensions of its tensors.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Tensor
    num_examples: int
    tokens: frozenset[int]

    @property
    def layout(self) -> str:
        """How many dimensions the result has, and whether its first one may be the examples."""
        shape, n = self.output.shape, self.num_examples
        lead = "" if not shape else "n" if shape[0] == n else "n m" if shape[0] % n == 0 else "m"
        return f" to {len(shape)} dimensions [{lead}, ...]"

    def is_split(self, x: Any, keep: int = 1) -> bool:
        """Whether `split` can tell the examples of x apart."""
        n = self.num_examples
        if not isinstance(x, Tensor) or x.dim() <= keep or len(x) % n:
            return False
        return x.dim() > keep + 1 or len(x) // n in (1, *self.tokens)

    def split(self, x: Tensor, keep: int = 1) -> Tensor:
        """[n, ..., *kept] or [n m, ..., *kept] to [n, t, *kept] in float32, keeping the last dimensions.

        Nothing here says that a first dimension of the right size holds the examples: that is tried on two of them.
        """
        return x.detach().float().reshape(self.num_examples, -1, *x.shape[x.dim() - keep :])


def _linear(call: Call, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Found:
    found = _product(call, input, weight, False)
    return [*found, (bias, lambda grad: Explicit(call.split(grad).sum(1)))] if found else []


def _addmm(call: Call, input: Tensor, mat1: Tensor, mat2: Tensor) -> Found:
    found = _product(call, mat1, mat2, True)
    return [*found, (input, lambda grad: _reduced(call, grad, input))] if found else []


def _matmul(call: Call, input: Tensor, other: Tensor) -> Found:
    return _product(call, input, other, True) if other.dim() == 2 else []


def _product(call: Call, x: Tensor, weight: Tensor, inputs_first: bool) -> Found:
    """Of a weight [a, b] with x [..., a] if its inputs come first, else with x [..., b]."""
    if not call.is_split(x):
        return []

    def make(grad: Tensor) -> Part:
        sides = call.split(x), call.split(grad)
        return Outer(*sides) if inputs_first else Outer(*reversed(sides))

    return [(weight, make)]


def _embedding(
    call: Call, input: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Found:  # fmt: skip
    n, size = call.num_examples, len(weight)
    if max_norm is not None or scale_grad_by_freq or not call.is_split(input, 0):
        return []

    def make(grad: Tensor) -> Part:
        ids, gradients = input.detach().reshape(n, -1), call.split(grad)
        if padding_idx is not None:
            gradients = gradients * (ids != padding_idx % size).unsqueeze(-1)
        return Rows(ids, gradients, size)

    return [(weight, make)]


def _layer_norm(
    call: Call, input: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Found:  # fmt: skip
    return _affine(call, input, len(normalized_shape), weight, bias,
                   lambda: F.layer_norm(input.detach().float(), normalized_shape, eps=eps))  # fmt: skip


def _rms_norm(
    call: Call, input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None
) -> Found:
    return _affine(call, input, len(normalized_shape), weight, None,
                   lambda: F.rms_norm(input.detach().float(), normalized_shape, eps=eps))  # fmt: skip


def _affine(
    call: Call, x: Tensor, keep: int, weight: Tensor | None, bias: Tensor | None, normalized: Callable[[], Tensor]
) -> Found:
    """Scale and shift, in the last dimensions, of what a norm gives without them."""
    if not call.is_split(x, keep):
        return []
    return [
        (weight, lambda grad: Explicit((call.split(grad, keep) * call.split(normalized(), keep)).sum(1))),
        (bias, lambda grad: Explicit(call.split(grad, keep).sum(1))),
    ]


def _batch_norm(
    call: Call, input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Found:  # fmt: skip
    if training or running_mean is None or running_var is None:
        return []
    return _by_channel(call, input, weight, bias,
                       lambda: F.batch_norm(input.detach().float(), running_mean, running_var, eps=eps))  # fmt: skip


def _group_norm(
    call: Call, input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Found:  # fmt: skip
    return _by_channel(call, input, weight, bias, lambda: F.group_norm(input.detach().float(), num_groups, eps=eps))


def _by_channel(
    call: Call, x: Tensor, weight: Tensor | None, bias: Tensor | None, normalized: Callable[[], Tensor]
) -> Found:
    """Scale and shift of channels, x [n, channels, ...]."""
    if x.dim() < 2 or len(x) != call.num_examples:
        return []

    def places(tensor: Tensor) -> Tensor:
        return tensor.detach().float().reshape(*x.shape[:2], -1)

    return [
        (weight, lambda grad: Explicit((places(grad) * places(normalized())).sum(2))),
        (bias, lambda grad: Explicit(places(grad).sum(2))),
    ]


def _times(call: Call, input: Any, other: Any) -> Found:
    return _elementwise(call, (input, lambda grad: grad * other), (other, lambda grad: grad * input))


def _plus(call: Call, input: Any, other: Any) -> Found:
    return _elementwise(call, (input, lambda grad: grad), (other, lambda grad: grad))


def _expand(call: Call, input: Tensor, *sizes: Any) -> Found:
    return _elementwise(call, (input, lambda grad: grad))


def _elementwise(call: Call, *places: tuple[Any, Callable[[Tensor], Tensor]]) -> Found:
    """Operands that are the same for all examples, of an output whose first dimension is the examples."""
    output, found = call.output, []
    for operand, gradient in places:
        is_shared = isinstance(operand, Tensor) and (operand.dim() < output.dim() or len(operand) == 1)
        if is_shared and output.dim() and len(output) == call.num_examples:
            found.append((operand, lambda grad, like=operand, g=gradient: _reduced(call, g(grad.detach()), like)))
    return found


def _reduced(call: Call, grad: Tensor, like: Tensor) -> Part:
    """[n, ...] or [n t, ...] gradients summed, for each example, to the shape of an operand that was broadcast."""
    grad = grad.detach().float()
    if len(grad) != call.num_examples:
        grad = grad.reshape(call.num_examples, -1, *grad.shape[1:])
    rest = grad.shape[1:]
    missing = len(rest) - like.dim()
    if missing < 0:  # the operand has a first dimension of one, where the output has the examples
        return Explicit(grad.unsqueeze(1).sum_to_size(len(grad), *like.shape))
    return Explicit(grad.flatten(1, missing).sum(1).sum_to_size(len(grad), *like.shape) if missing else
                    grad.sum_to_size(len(grad), *like.shape))  # fmt: skip


def _convolution(
    call: Call, input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Found:  # fmt: skip
    if isinstance(padding, str) or input.dim() != weight.dim() or len(input) != call.num_examples:
        return []
    num_axes = weight.dim() - 2
    settings = [[s] * num_axes if isinstance(s, int) else list(s) for s in (stride, padding, dilation)]

    def make(grad: Tensor) -> Part:
        x, output, kernel = input.detach().float(), grad.detach().float(), weight.detach().float()

        def one(i: int) -> Tensor:
            return torch.ops.aten.convolution_backward(
                output[i : i + 1], x[i : i + 1], kernel, None, *settings, False, [0] * num_axes, groups,
                [False, True, False],
            )[1]  # fmt: skip

        return Replayed(one, len(x))

    return [(weight, make), (bias, lambda grad: Explicit(grad.detach().float().flatten(2).sum(2)))]


def replay(call: Call, sources: Collection[Tensor]) -> tuple[Found, str]:
    """How to do an operation without a rule again on one example at a time, and which arguments have examples.

    Args:
        sources: the tensors whose gradients are wanted, which have no examples.
    Returns:
        Nothing where the operation does not act on each example.
    """
    n, name = call.num_examples, getattr(call.function, "__name__", "_")
    if name.endswith("_") and not name.endswith("__") or "out" in call.kwargs:  # it writes into what it is given
        return [], ""
    own = {id(x) for x in sources}
    arguments = {**dict(enumerate(call.args)), **call.kwargs}
    split = [key for key, x in arguments.items()
             if isinstance(x, Tensor) and x.dim() and len(x) == n and id(x) not in own]  # fmt: skip
    if not split or not call.output.dim() or len(call.output) != n:
        return [], ""

    def one(source: Tensor, grad: Tensor, i: int) -> Tensor:
        leaf = source.detach().clone().requires_grad_()
        given = {k: x.detach() if isinstance(x, Tensor) else x for k, x in arguments.items()}
        given |= {k: given[k][i : i + 1] for k in split} | {k: leaf for k, x in arguments.items() if x is source}
        args = [given.pop(k) for k in range(len(call.args))]
        with torch.enable_grad():
            output = call.function(*args, **given)
        return torch.autograd.grad(output, leaf, grad[i : i + 1])[0].float()

    def make(source: Tensor) -> Make:
        return lambda grad: Replayed(partial(one, source, grad), n)

    return [(source, make(source)) for source in sources], f" of examples in {split}"


EXPANDING = (Tensor.expand, Tensor.expand_as)
"""Operations that give each example a copy of a parameter."""
RULES: dict[Callable[..., Any], Callable[..., Found]] = {
    F.linear: _linear,
    F.embedding: _embedding,
    F.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    F.batch_norm: _batch_norm,
    F.group_norm: _group_norm,
    **dict.fromkeys((torch.addmm, Tensor.addmm), _addmm),
    **dict.fromkeys((torch.matmul, Tensor.matmul, Tensor.__matmul__), _matmul),
    **dict.fromkeys((torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__), _times),
    **dict.fromkeys((torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.add_), _plus),
    **dict.fromkeys(EXPANDING, _expand),
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), _convolution),
}
"""Operation -> its rule, with the operation's own arguments."""
