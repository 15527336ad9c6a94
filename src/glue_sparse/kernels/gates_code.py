"""Kernels of gated weights: forward, and backward to diffs, logits and the group's gate."""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
CHECKED = tl.constexpr(False)
"""Whether integers that wrap around are errors where kernels are debugged."""


@triton.jit
def uniform(position, first, second):
    """Numbers in [0, 1] of positions and two keys: the same bits as those of `glue_sparse.methods.gates.noise.Noise`.

    Unsigned, so that shifts fill with zeros.
    """
    x = tl.add(tl.mul(position.to(tl.uint32), 0x9E3779B9, sanitize_overflow=CHECKED), first.to(tl.uint32),
               sanitize_overflow=CHECKED)  # fmt: skip
    x = tl.add(tl.mul(x ^ (x >> 16), 0x85EBCA6B, sanitize_overflow=CHECKED), second.to(tl.uint32),
               sanitize_overflow=CHECKED)  # fmt: skip
    x = tl.mul(x ^ (x >> 13), 0xC2B2AE35, sanitize_overflow=CHECKED)
    return 0.5 + x.to(tl.int32, bitcast=True).to(tl.float32) * 2.0**-32


@triton.jit
def _sigmoid(
    logit, position, first, second, HAS_NOISE: tl.constexpr, TEMPERATURE: tl.constexpr, MARGIN: tl.constexpr
):  # fmt: skip
    """Of the logit and its noise, before it is stretched: 1 / (1 + (e^-logit (1 - u) / u)^(1 / temperature)).

    At temperature 1 that needs no logarithm, the dearest of a gate's operations.
    """
    x, odds = logit * -LOG2_E, 1.0
    if HAS_NOISE:
        u = uniform(position, first, second)
        u = tl.where(u < MARGIN, MARGIN, tl.where(u > 1 - MARGIN, 1 - MARGIN, u))
        odds = (1 - u) / u
        if TEMPERATURE != 1:
            x, odds = (x + tl.log2(odds)) / TEMPERATURE, 1.0
    return 1 / (1 + tl.exp2(x) * odds)


@triton.jit
def _clamped(stretched):
    """To [0, 1]; what is no number stays none, so that it is seen."""
    return tl.where(stretched < 0, 0.0, tl.where(stretched > 1, 1.0, stretched))


@triton.jit
def _slope(given, s, stretched, SCALE: tl.constexpr):
    """The gradient by a logit from that by its gate, which passes where the gate is not clamped."""
    return tl.where((stretched <= 0) | (stretched >= 1), 0.0, given) * (1 - s) * s * SCALE


@triton.jit(do_not_specialize=["first", "second", "group_first", "group_second"])
def gated(
    out, weight, diff, alpha, group, first, second, group_first, group_second, count, HAS_WEIGHT: tl.constexpr,
    HAS_GROUP: tl.constexpr, HAS_NOISE: tl.constexpr, LOWER: tl.constexpr, WIDTH: tl.constexpr,
    TEMPERATURE: tl.constexpr, MARGIN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out = weight + z * z_group * diff. Where the group is shut, its diffs and logits are not even read."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_in = i < count
    is_read = is_in
    if HAS_GROUP:
        s = _sigmoid(tl.load(group), tl.full((), 0, tl.int32), group_first, group_second, HAS_NOISE, TEMPERATURE,
                     MARGIN)  # fmt: skip
        z_group = _clamped(s * WIDTH + LOWER)
        is_read = is_in & (tl.broadcast_to(z_group, (BLOCK,)) != 0)
    logit = tl.load(alpha + i, mask=is_read, other=0.0)
    change = _clamped(_sigmoid(logit, i, first, second, HAS_NOISE, TEMPERATURE, MARGIN) * WIDTH + LOWER)
    if HAS_GROUP:
        change *= z_group
    change *= tl.load(diff + i, mask=is_read, other=0.0)
    if HAS_WEIGHT:
        change += tl.load(weight + i, mask=is_in, other=0.0).to(tl.float32)
    tl.store(out + i, change.to(out.dtype.element_ty), mask=is_in)


@triton.jit(do_not_specialize=["first", "second", "group_first", "group_second"])
def gate_gradients(
    grad, to_diff, to_alpha, to_group, diff, alpha, group, first, second, group_first, group_second, count,
    HAS_GROUP: tl.constexpr, HAS_NOISE: tl.constexpr, LOWER: tl.constexpr, WIDTH: tl.constexpr,
    TEMPERATURE: tl.constexpr, MARGIN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients by diffs and logits from that by the weight, and to_group[program], this program's share of its own."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_in = i < count
    is_read = is_in
    if HAS_GROUP:
        s_group = _sigmoid(tl.load(group), tl.full((), 0, tl.int32), group_first, group_second, HAS_NOISE, TEMPERATURE,
                           MARGIN)  # fmt: skip
        z_group = _clamped(s_group * WIDTH + LOWER)
        is_read = is_in & (tl.broadcast_to(z_group, (BLOCK,)) != 0)
    g = tl.load(grad + i, mask=is_read, other=0.0).to(tl.float32)
    by_gate = g * tl.load(diff + i, mask=is_read, other=0.0)
    logit = tl.load(alpha + i, mask=is_read, other=0.0)
    s = _sigmoid(logit, i, first, second, HAS_NOISE, TEMPERATURE, MARGIN)
    stretched = s * WIDTH + LOWER
    by_alpha = _slope(by_gate, s, stretched, WIDTH / TEMPERATURE)
    z = _clamped(stretched)
    if HAS_GROUP:
        share = _slope(tl.sum(by_gate * z, 0), s_group, s_group * WIDTH + LOWER, WIDTH / TEMPERATURE)
        tl.store(to_group + tl.program_id(0), share)
        g *= z_group
        by_alpha *= z_group
    tl.store(to_diff + i, g * z, mask=is_in)
    tl.store(to_alpha + i, by_alpha, mask=is_in)
