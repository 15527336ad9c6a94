"""Whole-word masking: which tokens a masked language model has to predict, and what it sees in their place."""

import zlib
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from glue_sparse.core.batches import IGNORED
from glue_sparse.core.randomness import seeded
from glue_sparse.models.tokenizers import SpecialIds
from glue_sparse.tasks.pretraining.wordpiece import CONTINUES

MASKED_FRACTION = 0.15
"""Share of the tokens of an example that are predicted, special tokens counted as well."""

_SHOWN_AS_MASK, _SHOWN_AS_RANDOM = 0.8, 0.1


@dataclass(frozen=True, eq=False)
class Masking:
    """Masks words of encoded text as BERT does (Devlin et al., 2019, appendix A.1; whole words as in its later code).

    Of each example 15 % of the tokens are chosen, word by word at random; a word that no longer fits is passed over.
    Of the chosen tokens 80 % are shown as [MASK], 10 % as a random token and 10 % as they are.
    """

    ids: SpecialIds
    special: np.ndarray
    """[vocabulary] bool: tokens that are never chosen."""
    continues: np.ndarray
    """[vocabulary] bool: pieces that go on with the word before them. Without such pieces each token is a word."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "Masking":
        """Masking for a tokenizer that has a mask token; word pieces are told by their `##`."""
        tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        ids, special = SpecialIds.of(tokenizer), np.zeros(len(tokens), dtype=bool)
        special[list(astuple(ids))] = True
        continues = np.array([token.startswith(CONTINUES) and token != CONTINUES for token in tokens])
        return cls(ids, special, continues)

    def apply(self, ids: np.ndarray, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
        """What the model sees and what it has to predict.

        Args:
            ids: [n, length] int64 tokens, padded at the end.
        Returns:
            Tokens and labels, [n, length] int64 each; a label is -100 where nothing is to be predicted.
        """
        chosen = self.choose(ids, torch.rand(ids.shape, generator=generator).numpy())
        shown_as = torch.rand(ids.shape, generator=generator).numpy()
        random = torch.randint(len(self.special), ids.shape, generator=generator).numpy()
        seen = np.where(chosen & (shown_as < _SHOWN_AS_MASK), self.ids.mask, ids)
        drawn = chosen & (shown_as >= _SHOWN_AS_MASK) & (shown_as < _SHOWN_AS_MASK + _SHOWN_AS_RANDOM)
        return np.where(drawn, random, seen), np.where(chosen, ids, IGNORED)

    def choose(self, ids: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        """The tokens to predict, [n, length] bool: words in the order of the rank in the column of their number.

        Args:
            ids: [n, length] tokens.
            ranks: [n, length] numbers in [0, 1).
        """
        count, width = ids.shape
        candidates = ~self.special[ids]
        goes_on = candidates & self.continues[ids]
        goes_on[:, 0] = False
        goes_on[:, 1:] &= candidates[:, :-1]  # a piece behind a special token has lost its start: it counts as a word
        word = np.cumsum(candidates & ~goes_on, axis=1) - 1
        num_words = word[:, -1] + 1
        places = (np.arange(count)[:, None] * width + word)[candidates]
        sizes = np.bincount(places, minlength=count * width).reshape(count, width)
        order = np.argsort(np.where(np.arange(width) < num_words[:, None], ranks, 2.0), axis=1, kind="stable")
        ordered = np.take_along_axis(sizes, order, axis=1)
        lengths = (ids != self.ids.pad).sum(axis=1)
        left = np.maximum(1, np.rint(MASKED_FRACTION * lengths)).astype(np.int64)
        taken = np.zeros((count, width), dtype=bool)
        for column in range(int(num_words.max(initial=0))):
            size = ordered[:, column]
            taken[:, column] = (size > 0) & (size <= left)
            left -= np.where(taken[:, column], size, 0)
            if not left.any():
                break
        by_word = np.zeros((count, width), dtype=bool)
        np.put_along_axis(by_word, order, taken, axis=1)
        return candidates & np.take_along_axis(by_word, np.maximum(word, 0), axis=1)


@dataclass(frozen=True, eq=False)
class MaskingCollator:
    """Items of `sentence_pairs` to a batch: padded, and masked where an item has no labels yet.

    Masks are a function of the seed and of the tokens of the batch. So neither the number of loader workers nor a
    resumption changes them, and no random state has to be saved; an example gets other masks in each epoch because the
    other examples in its batch, and their order, are others. A batch of one example has the same in each epoch.
    """

    masking: Masking
    seed: int
    width: int | None = None
    """Tokens to pad to; by default those of the longest example."""

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask`, `token_type_ids` and `labels`, [n, width], and `next_sentence_label`, [n]."""
        width = self.width or max(len(item["input_ids"]) for item in items)
        ids = self._padded(items, "input_ids", width, self.masking.ids.pad)
        attended = np.arange(width) < np.array([[len(item["input_ids"])] for item in items])
        if "labels" in items[0]:
            seen, labels = ids, self._padded(items, "labels", width, IGNORED)
        else:
            seen, labels = self.masking.apply(ids, seeded(self.seed, "mask", zlib.crc32(ids.data)))
        arrays = {
            "input_ids": seen,
            "attention_mask": attended.astype(np.int64),
            "token_type_ids": self._padded(items, "token_type_ids", width, 0),
            "labels": labels,
            "next_sentence_label": np.array([item["next_sentence_label"] for item in items]),
        }
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    @staticmethod
    def _padded(items: list[dict[str, Any]], name: str, width: int, value: int) -> np.ndarray:
        padded = np.full((len(items), width), value, dtype=np.int64)
        for row, item in enumerate(items):
            padded[row, : len(item[name])] = item[name]
        return padded
