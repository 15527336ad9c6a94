"""How many tokens a network can read, by its table of positions."""

from torch import nn
from transformers import PreTrainedModel


def max_tokens(network: PreTrainedModel) -> int | None:
    """Longest input in tokens, special tokens included; none where the network sets no limit.

    RoBERTa and its kin number positions from behind the padding index, so that so many rows of their table and one
    more are no positions of tokens. A configuration's -1 (XLNet) or 0 sets no limit.
    """
    limits = [getattr(network.config.get_text_config(), "max_position_embeddings", None)]
    for name, module in network.named_modules():
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings"):
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - unused)
    return min((limit for limit in limits if limit and limit > 0), default=None)


def counts_from_padding(network: PreTrainedModel) -> bool:
    """Whether positions are numbered from behind the padding index, by the tokens that are no padding."""
    return any(
        "position" in name.rpartition(".")[2] and getattr(module, "padding_idx", None) is not None
        for name, module in network.named_modules()
    )
