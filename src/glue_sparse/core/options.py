"""Options by name, as literal types: what a run may be told without loading torch."""

from typing import Literal

Inactive = Literal["frozen", "zero"]
"""What an entry holds that is not active: the value it had, or zero."""


Norm = Literal["l1", "l2", "linf"]
"""How entries make the score of their tile: sum of magnitudes, root of the sum of squares, or largest magnitude."""


Initial = Literal["truncated_normal", "glorot"]


Entrants = Literal["mean", "zero"]
"""What an entrant's mean squared gradient starts from: the mean of the survivors', or zero as all its other state."""


Dtype = Literal["float32", "bfloat16"]
"""Types that base weights may have."""


Distribution = Literal["global", "uniform", "erk", "row"]
"""How what is pruned is shared out: over all tensors together, per tensor, or per row of each."""


Pooling = Literal["auto", "pooler", "cls", "mean"]
"""What the head of a text classifier reads: what suits the checkpoint, the output of the model's own pooler, the state
of the first token, or the mean state of all tokens."""


Shared = Literal["global", "uniform", "erk"]
"""How entries that a score chooses are shared out: over all tensors together, or per tensor."""


Salience = Literal[
    "gradient", "saliency", "taylor", "skeletonization", "synflow", "grasp", "magnitude", "random", "fisher"
]
"""Scores that have a name; `scores.named` says what they are."""


Unlabelled = Literal["magnitude", "wanda", "random"]
"""Criteria of pruning that need no labels."""


Kind = Literal["causal", "masked"]
"""Of a language model: which tokens it predicts."""


Precision = Literal["float32", "bfloat16", "differences"]
"""What a file keeps of the values: all; bfloat16, each within 0.2 % of itself; or, as bfloat16 too, by how much each
differs from the base, within 0.2 % of that."""


MergeRule = Literal["sum", "mean", "ties", "dare", "priority"]
"""How changes that several diffs make to one base become one: `algebra.merge` says what each does."""
