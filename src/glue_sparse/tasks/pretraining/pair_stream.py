"""Pairs of segments made while training, from text that need not fit in memory."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import IterableDataset
from transformers import PreTrainedTokenizerBase

from glue_sparse.core.randomness import seeded
from glue_sparse.models.tokenizers import SpecialIds
from glue_sparse.tasks.corpus import Corpus
from glue_sparse.tasks.pretraining.sentence_pairs import item_of, make_pairs, tokenise

WINDOW = 2000
"""Documents in memory at a time. Negatives are from the same window, and its pairs are mixed with each other."""


class PairStream(IterableDataset):
    """Items for `MaskingCollator` without an end: the text again and again, with other pairs each time.

    It has no epochs, so a resumed run finds its place by the number of items alone, and a single loader worker makes
    them all.
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        seed: int,
        window: int = WINDOW,
    ):
        self.corpus, self.tokenizer = corpus, tokenizer
        self.max_length, self.seed, self.window = max_length, seed, window

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Raises ValueError when the text gives no pairs."""
        passes = 0
        while True:
            documents, number, found = iter(self.corpus), 0, 0
            while window := list(islice(documents, self.window)):
                for item in self._pairs(window, passes, number):
                    yield item
                    found += 1
                number += 1
            if not found:
                raise ValueError(f"{self.corpus.title} gives no pairs: at least two documents are needed, divided by a "
                                 "blank line")  # fmt: skip
            passes += 1

    def _pairs(self, window: list[list[str]], passes: int, number: int) -> Iterator[dict[str, Any]]:
        """The pairs of one window, mixed; none of a last window with a single document."""
        tokens = tokenise(window, self.tokenizer)
        if tokens.num_documents < 2:
            return
        seed_of_pass = int(torch.randint(2**62, (1,), generator=seeded(self.seed, "pass", passes)))
        bounds = make_pairs(tokens, self.max_length, seed_of_pass, first_document=number * self.window)
        order = torch.randperm(len(bounds), generator=seeded(self.seed, "window", passes, number))
        special = SpecialIds.of(self.tokenizer)
        for index in order.tolist():
            yield item_of(tokens.ids, bounds[index], special)
