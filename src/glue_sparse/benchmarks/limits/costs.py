"""What each hot path has to move and to compute: bytes and operations, by formulas.

Bytes are those of tensors that lie in memory before, or have to lie there after: each is read or written once, as if
what is made and used within a part stayed in a cache. Operations are those of products, a multiplication and an
addition as two; exponentials, norms and random numbers are not counted. So a floor made of them is never too high.

The floor of a part is the larger of its two times, since moving and computing can go on at once (the roofline of
Williams, Waterman and Patterson, 2009, doi 10.1145/1498765.1498785). The floor of a path is the sum over its parts,
since each of them needs what the one before has made: a whole forward pass comes before the backward pass, and the norm
of all gradients before the first weight changes.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

from glue_sparse.benchmarks.limits.ceilings import Ceilings
from glue_sparse.costs.bert_flops import counted_flops, encoder_entries

FLOAT = 4
"""Bytes of a float32 number, and of a flat position that fits into int32."""
ADAM = 7 * FLOAT
"""A step of Adam reads a weight, its gradient and two moments, and writes the weight and the moments."""


class Part(NamedTuple):
    """What has to be done before the next part can begin: bytes that move, and operations in a type."""

    what: str
    bytes: float
    flops: float = 0.0
    dtype: str = "float32"

    def seconds(self, ceilings: Ceilings) -> float:
        """The larger of both times; see the module."""
        return max(self.bytes / ceilings.copy, self.flops / ceilings.products[self.dtype])

    def bound(self, ceilings: Ceilings) -> str:
        """Which of both it is."""
        return "memory" if self.bytes / ceilings.copy == self.seconds(ceilings) else "products"


def floor(parts: Sequence[Part], ceilings: Ceilings) -> float:
    """Seconds below which no way of doing these parts one after the other comes."""
    return sum(part.seconds(ceilings) for part in parts)


class Size(NamedTuple):
    """A BERT classifier and a batch of `rows` sequences of `tokens` tokens."""

    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocabulary: int
    rows: int
    tokens: int

    @property
    def matrices(self) -> int:
        """Linear weights of the encoder."""
        return encoder_entries(self.layers, self.hidden, self.intermediate)

    @property
    def linear(self) -> float:
        """FLOPs of all linear maps in a forward pass: 2 for each weight and token; pooler and head see one token."""
        return 2.0 * self.rows * (self.tokens * self.matrices + self.hidden**2 + 2 * self.hidden)

    @property
    def attention(self) -> float:
        """FLOPs of queries by keys and of weights by values in a forward pass: 4 tokens^2 hidden for each layer."""
        return self.rows * counted_flops(0, self.layers, self.hidden, self.tokens) / 3

    def activations(self, width: int) -> float:
        """Bytes of what a backward pass needs of the layers, in numbers of `width` bytes.

        Of each token: the inputs of the linear maps, which are a block's input, the context, the first norm's output
        and the inner layer (the gelu's input, its output follows from that), and queries, keys and values.
        """
        return float(width * self.rows * self.tokens * self.layers * (6 * self.hidden + self.intermediate))

    def table_rows(self) -> float:
        """Bytes of the rows of the word table that a batch reads, all different at most."""
        return float(FLOAT * min(self.rows * self.tokens, self.vocabulary) * self.hidden)


def passes(size: Size, weights_read: float, dtype: str, weight_flops: float, written: float) -> tuple[Part, Part]:
    """Forward and backward pass.

    Forward: matrices and rows of the table are read, activations written. Backward: both are read again (matrices to
    get to the gradients of inputs, which take as many operations as the forward pass; those of attention's two
    operands take twice), and gradients are written.

    Args:
        weights_read: bytes from which the matrices' weights follow, in each pass.
        weight_flops: of the weights' gradients.
        written: bytes of gradients.
    """
    kept = size.activations(2 if dtype == "bfloat16" else FLOAT)
    products = size.linear + size.attention
    back = size.linear + 2 * size.attention + weight_flops
    return (Part("forward", weights_read + size.table_rows() + kept, products, dtype),
            Part("backward", weights_read + kept + written, back, dtype))  # fmt: skip


def full_step(size: Size, entries: int, dtype: str = "float32") -> tuple[Part, ...]:
    """Full fine-tuning of n = `entries` weights by Adam with clipping.

    4 n bytes of gradients are written, and read again for their norm; Adam moves 28 n. Gradients of the weights take as
    many operations as the forward pass of the linear maps.
    """
    back = passes(size, FLOAT * size.matrices, dtype, size.linear, FLOAT * entries)
    return *back, Part("norm", FLOAT * entries), Part("Adam", ADAM * entries)


def sparse_step(
    size: Size, active: int, in_matrices: int, whole: int, lines: int, line: int, dtype: str = "float32"
) -> tuple[Part, ...]:
    """A step of k = `active` entries, `in_matrices` of them in matrices, and of `whole` entries of a head.

    As full fine-tuning, with k + whole in the place of n, and gradients of weights at active entries alone: 2
    operations for each of them and token. Positions, 4 k bytes, are read when gradients are formed, and when the new
    values are written into the weights: each cache line that holds one is read and written.

    Args:
        lines: number of these cache lines.
        line: bytes of one.
    """
    trained = active + whole
    flops = 2.0 * size.rows * (size.tokens * in_matrices + whole)
    back = passes(size, FLOAT * size.matrices, dtype, flops, FLOAT * (trained + active))
    write = Part("values into weights", 2 * FLOAT * active + 2 * line * lines)
    return *back, Part("norm", FLOAT * trained), Part("Adam", ADAM * trained), write


def fisher(size: Size, entries: int) -> tuple[Part, ...]:
    """Squared gradients of single examples, summed over a batch, of n = `entries` weights, in float32.

    A gradient of each example for itself takes as many operations as one of all. Each of its entries is then squared
    and added to a sum, 2 operations for each matrix entry and example, and need not leave the cache; sums are read and
    written once in a batch, 8 n bytes.
    """
    flops = size.linear + 2.0 * size.rows * size.matrices
    return passes(size, FLOAT * size.matrices, "float32", flops, 2 * FLOAT * entries)


def select(entries: int, active: int) -> tuple[Part, ...]:
    """The k best of n scores: each is read at least once, 4 n bytes, and positions are written, 4 k.

    Once is enough only for who knows the threshold before; finding it takes a second reading unless what may be above
    it is kept, so a ratio of 2 is good.
    """
    return (Part("scores", FLOAT * (entries + active)),)


def gates_step(size: Size, gated: int, whole: int, dtype: str = "float32") -> tuple[Part, ...]:
    """Stage 1 of diff pruning without groups, of n = `gated` weights and `whole` entries of a head.

    A weight w0 + z d follows from three numbers, w0, d and the logit of its gate, and from noise, which can be made
    again: 12 n bytes in each pass. Two of them train, so 8 n bytes of gradients, and 2 n in the place of n for the
    norm and Adam. Operations are those of full fine-tuning.
    """
    trained = 2 * gated + whole
    back = passes(size, 3 * FLOAT * gated, dtype, size.linear, FLOAT * trained)
    return *back, Part("norm", FLOAT * trained), Part("Adam", ADAM * trained)


def tiles_forward(tokens: int, shape: tuple[int, int], active: int, dtype: str = "float32") -> tuple[Part, ...]:
    """y = x W^T of an [out, in] matrix with so many active entries: x and they are read, y is written; 2 operations
    for each active entry and token."""
    width = 2 if dtype == "bfloat16" else FLOAT
    moved = width * tokens * sum(shape) + FLOAT * active
    return (Part("product", moved, 2.0 * tokens * active, dtype),)


def tiles_backward(tokens: int, shape: tuple[int, int], active: int, dtype: str = "float32") -> tuple[Part, ...]:
    """Gradients of x and of the active entries: that of y, x and the entries are read, both gradients are written; 4
    operations for each active entry and token."""
    width, (outputs, inputs) = 2 if dtype == "bfloat16" else FLOAT, shape
    moved = width * tokens * (outputs + 2 * inputs) + 2 * FLOAT * active
    return (Part("both gradients", moved, 4.0 * tokens * active, dtype),)


def writes(active: int, whole: int, lines: int, line: int) -> tuple[Part, ...]:
    """Entries of diffs put into tensors: positions and values are read, 8 k bytes, each cache line that holds one is
    read and written, and so are tensors that a diff has whole, 12 bytes an entry with what they held before.

    Args:
        active: k, of all diffs that a swap takes out or puts in.
        whole: entries of whole tensors that it puts in.
        lines: number of cache lines touched.
        line: bytes of one.
    """
    return (Part("writes", 2 * FLOAT * active + 3 * FLOAT * whole + 2 * line * lines),)


def num_lines(places: Iterable[Tensor], line: int) -> int:
    """Cache lines of `line` bytes that hold one of these flat positions, each vector of them in a float32 tensor."""
    return sum(len((found.long() * FLOAT // line).unique()) for found in places)
