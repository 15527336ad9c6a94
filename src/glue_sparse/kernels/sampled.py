"""Gradients of a weight at its active entries alone: k dot products over tokens."""

import torch
from torch import Tensor

from glue_sparse.kernels import backend

_BLOCK_ENTRIES, _BLOCK_TOKENS = 32, 128
_MOST_COPIED = 1 << 25
"""Numbers of transposed copies held at once; more tokens are taken in pieces."""
_LEAST_TOKENS = 1024
_ALIGNED = 16


def sampled_product(grad: Tensor, x: Tensor, starts: Tensor, columns: Tensor) -> Tensor:
    """grad^T x at the entries of a pattern, summed in float32, without atomics: the same bits each time.

    Both matrices are first transposed. As they come, the tokens of one entry are a row apart, and neighbouring entries
    of a sparse row far apart too, so that each number would be fetched with the 30 bytes beside it. Transposed, an
    entry's tokens follow each other, the rows of `grad` are shared by the entries of a row, and the copies cost time
    with (out + in) tokens, where the products take k tokens.

    Args:
        grad: [T, out], of the output.
        x: [T, in]; each of float32, bfloat16 or float16.
        starts: [out + 1] int32, where each row begins in `columns`.
        columns: [k] int32.
    Returns:
        [k] float32.
    """
    total = torch.zeros(columns.shape, dtype=torch.float32, device=grad.device)
    if not len(columns):
        return total
    piece = max(_LEAST_TOKENS, _MOST_COPIED // (grad.shape[1] + x.shape[1]))
    for grads, inputs in zip(grad.split(piece), x.split(piece), strict=True):
        if len(grads):
            total += _of_piece(_transposed(grads), _transposed(inputs), len(grads), starts, columns)
    return total


def _transposed(matrix: Tensor) -> Tensor:
    """[T, n] to [n, T or a few more], whose rows begin where several numbers can be loaded at once."""
    tokens, width = matrix.shape
    copy = matrix.new_empty(width, backend.ceil(tokens, _ALIGNED) * _ALIGNED)
    copy[:, :tokens] = matrix.t()
    return copy


def _of_piece(grad: Tensor, x: Tensor, tokens: int, starts: Tensor, columns: Tensor) -> Tensor:
    """[out, t] and [in, t] to [k]."""
    blocks = backend.ceil(len(columns), _BLOCK_ENTRIES)
    parts = backend.parts(blocks, tokens, 4 * _BLOCK_TOKENS)
    each = backend.ceil(backend.ceil(tokens, parts), _BLOCK_TOKENS) * _BLOCK_TOKENS
    found = torch.empty(parts, len(columns), dtype=torch.float32, device=grad.device)
    num_rows = len(starts) - 1
    backend.launch(
        backend.code("sampled").sampled_product, (blocks, parts), grad, x, found, starts, columns, len(columns),
        num_rows, tokens, grad.shape[1], each, STEPS=num_rows.bit_length(), BLOCK_E=_BLOCK_ENTRIES,
        BLOCK_T=_BLOCK_TOKENS,
    )  # fmt: skip
    return found[0] if parts == 1 else found.sum(0)
