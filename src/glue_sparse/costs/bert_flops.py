"""FLOPs of pre-training a BERT of a given size, by the formula of Dietrich et al. (2021, arXiv 2108.06277), A.2.

Per sequence, forward and backward, with a multiplication and an addition as one FLOP each. Their count has the linear
weights of the encoder and the products of attention; it has no embeddings, pooler, heads, biases, norms and softmax.
"""

FLOPS, ACTIVE = "encoder_training_flops_per_sequence", "encoder_active_entries"
"""Among the FLOPs of a run's results: by the formula, and the active linear weights in it."""
LENGTH = 128
"""Tokens of a sequence in the paper."""
PREDICTIONS = 20
"""Masked tokens of a sequence of 128: 15 percent."""
VOCABULARY = 30522
"""Words of the usual BERT."""


def encoder_entries(layers: int, hidden: int, intermediate: int | None = None) -> int:
    """Linear weights of an encoder, without biases; its feed-forward part is 4 times as wide as `hidden` by default."""
    return layers * (4 * hidden**2 + 2 * hidden * (4 * hidden if intermediate is None else intermediate))


def encoder_flops(layers: int, hidden: int, density: float = 1.0, length: int = LENGTH) -> float:
    """FLOPs of one training sequence: 3 [2 S density 12 L h^2 + 4 S^2 h L] for S = `length` tokens.

    Args:
        density: active share of the linear weights. Attention's products stay dense.
    Raises:
        ValueError: a density outside (0, 1].
    """
    if not 0 < density <= 1:
        raise ValueError(f"the density of an encoder is in (0, 1], got {density}")
    return counted_flops(density * encoder_entries(layers, hidden), layers, hidden, length)


def counted_flops(active_entries: float, layers: int, hidden: int, length: int = LENGTH) -> float:
    """FLOPs of one training sequence, as `encoder_flops`, for a counted number of active linear weights."""
    return 3.0 * (2 * length * active_entries + 4 * length**2 * hidden * layers)


def report(active_entries: int, layers: int, hidden: int, length: int = LENGTH) -> dict[str, float]:
    """What a run's results say of its encoder: `FLOPS` and `ACTIVE`."""
    return {FLOPS: counted_flops(active_entries, layers, hidden, length), ACTIVE: active_entries}


def head_flops(hidden: int, vocabulary: int = VOCABULARY, predictions: int = PREDICTIONS) -> float:
    """FLOPs of the masked-word head in training, one sequence: 3 * 2 K (h^2 + h V); the paper leaves them out.

    Args:
        vocabulary: V, words of the model.
        predictions: K, positions at which the head computes: the masked ones, or all where a model does not choose.
    """
    return 3.0 * 2 * predictions * (hidden**2 + hidden * vocabulary)
