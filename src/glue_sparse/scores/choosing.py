"""Masks chosen on a model that is too large for one rank: scores and selection on its shards."""

from collections.abc import Iterable

from torch import nn

from glue_sparse.core.batches import Batch
from glue_sparse.core.chosen import Chosen
from glue_sparse.core.shard_masks import select_on_shards
from glue_sparse.core.shards import parts_of
from glue_sparse.scores.scores import ScoreFunction, check_names, of_all_ranks, refuses_shards


def choose_on_shards(
    model: nn.Module, names: tuple[str, ...], score: ScoreFunction, batches: Iterable[Batch],
    budget: int | dict[str, int],
) -> Chosen:  # fmt: skip
    """The best entries of a sharded model by a score, as `masks.select` finds them on the whole model.

    The model is a copy to be thrown away: a plain one of which `fully_shard` has cut each repeated layer, and then
    what is left. Masks fit the whole model, since positions are those of whole tensors. All ranks call this together.

    Args:
        model: cut by `fully_shard`. For a score that looks at gradients its parameters are float32, and it computes in
            a shorter type by a `MixedPrecisionPolicy`; how it reduces gradients is changed for good.
        names: of the parameters among whose entries to choose.
        score: one that takes sharded models: `fisher`, `gradient`, `magnitude`, `noise` and others, or a `partial` of
            one.
        batches: this rank's share of the examples; ranks may have different numbers, or none.
        budget: active entries of all tensors together, or of each.
    Returns:
        The same masks on every rank, on the CPU.
    Raises:
        ValueError: a score that takes no sharded models, a model or budget that does not fit, scores that are not
            finite; on all ranks.
    """
    if reason := refuses_shards(score):
        raise ValueError(reason)
    parts = parts_of(model, names)
    scores = of_all_ranks(score(model, names, batches), lambda summed: summed)  # over all ranks already
    check_names(scores, names)
    return select_on_shards(scores, budget, parts)
