"""Whether model, tokenizer and data fit each other, in one sentence where they do not."""

from collections.abc import Iterable
from typing import Any

import pyarrow.compute as pc
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from glue_sparse.models.positions import max_tokens


def check_length(max_length: int, tokenizer: PreTrainedTokenizerBase, network: PreTrainedModel) -> None:
    """Raise a ValueError when `max_length` is fewer tokens than make sense or more than the model can read."""
    positions = max_tokens(network)
    longest = min(tokenizer.model_max_length, positions) if positions else max_length
    if max_length < 8 or max_length > longest:
        most = f" to this model's {longest} tokens" if positions else " tokens on"
        raise ValueError(f"`max_length` must be from 8{most}, got {max_length}")


def check_ids(
    splits: Iterable[Dataset], tokenizer: PreTrainedTokenizerBase, network: PreTrainedModel, model: str
) -> None:
    """Raise a ValueError for a token, or a kind of token, that the model's tables have no row for.

    Args:
        splits: tokenised rows, with `input_ids` and perhaps `token_type_ids`.
    """
    splits, table, pad = [*splits], network.get_input_embeddings(), tokenizer.pad_token_id
    largest: Any = max([pad or 0, *(_largest(rows, "input_ids") for rows in splits)])
    if isinstance(table, nn.Embedding) and largest >= table.num_embeddings:
        word = tokenizer.convert_ids_to_tokens(largest)
        raise ValueError(
            f"the tokenizer of {model} gives {word!r} the number {largest}, and the model has {table.num_embeddings} "
            f"rows of words: make it larger with resize_token_embeddings({len(tokenizer)}), save both, and give their "
            "folder as `model`"
        )
    kinds = [m.num_embeddings for name, m in network.named_modules()
             if isinstance(m, nn.Embedding) and name.endswith("token_type_embeddings")]  # fmt: skip
    largest = max(_largest(rows, "token_type_ids") for rows in splits)
    if kinds and largest >= min(kinds):
        raise ValueError(f"the tokenizer of {model} marks second texts by token_type_ids up to {largest}, and the "
                         f"model has type_vocab_size {min(kinds)}: give it a tokenizer of its own kind")  # fmt: skip


def _largest(rows: Dataset, column: str) -> int:
    if column not in rows.column_names or not len(rows):
        return 0
    table: Any = rows.with_format("arrow")
    return max(pc.max(pc.list_flatten(part[column])).as_py() or 0 for part in table.iter(10_000))  # pyright: ignore
