"""How much of a model trains, as a line to print."""

from torch import nn

from glue_sparse.costs.cost import cost_of


def count_trainable_parameters(model: nn.Module) -> tuple[int, int]:
    """Weights that an optimizer would update now, and all weights of the model.

    Of a tensor with active entries those count; of any other all, unless it is frozen. So before entries are attached
    (`SparseTrainer.choose` or `attach`), and after `detach`, it is all that requires a gradient.

    Args:
        model: any module, as it is.
    Returns:
        (weights that train, all weights); weights that tensors share count once.
    """
    cost = cost_of(model)
    return cost.trainable, cost.num_entries


def print_trainable_parameters(model: nn.Module) -> None:
    """Print the counts and their share, as a line like that of a model of peft.

    Args:
        model: as for `count_trainable_parameters`.
    """
    trainable, everything = count_trainable_parameters(model)
    share = 100 * trainable / everything if everything else 0.0
    print(f"trainable params: {trainable:,} || all params: {everything:,} || trainable%: {share:.4f}")
