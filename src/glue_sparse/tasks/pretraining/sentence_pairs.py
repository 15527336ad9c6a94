"""From documents to pairs of segments, half of them neighbours, as in BERT's pre-training (Devlin et al., 2019)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from glue_sparse.core.randomness import seeded
from glue_sparse.models.tokenizers import SpecialIds
from glue_sparse.tasks.corpus import Document
from glue_sparse.tasks.pretraining.masking import Masking

SHORT_FRACTION = 0.1
"""Share of the pairs that are made shorter than they could be, by a random length."""

NUM_SPECIAL = 3
"""Tokens of a pair besides its segments: [CLS] A [SEP] B [SEP]."""

_BATCH = 1000
"""Documents that are tokenised at a time."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of all documents one behind the other, and where sentences and documents start."""

    ids: np.ndarray
    """[tokens] uint16 or, for a large vocabulary, int32."""
    sentences: np.ndarray
    """[sentences + 1] first token of each sentence, and the number of tokens."""
    documents: np.ndarray
    """[documents + 1] first sentence of each document, and the number of sentences."""

    @property
    def num_documents(self) -> int:
        return len(self.documents) - 1

    @property
    def num_sentences(self) -> int:
        return len(self.sentences) - 1


def tokenise(documents: Iterable[Document], tokenizer: PreTrainedTokenizerBase, desc: str | None = None) -> Tokens:
    """Tokens of documents; sentences without any are left out, and documents without sentences.

    Args:
        desc: what a progress bar says; none without it.
    """
    dtype = np.uint16 if len(tokenizer) <= np.iinfo(np.uint16).max else np.int32
    parts: list[np.ndarray] = []
    lengths: list[int] = []
    sizes: list[int] = []
    source = iter(tqdm(documents, desc=desc, unit=" documents", disable=None if desc else True))
    while batch := list(islice(source, _BATCH)):
        sentences = [sentence for document in batch for sentence in document]
        encoded = tokenizer(
            sentences, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )["input_ids"]
        found = iter(encoded)
        for document in batch:
            kept = [len(ids) for ids in islice(found, len(document)) if len(ids)]
            lengths += kept
            sizes += [len(kept)] if kept else []
        parts += [np.array(ids, dtype=dtype) for ids in encoded]
    ids = np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)
    return Tokens(ids, _starts(lengths), _starts(sizes))


def _starts(lengths: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.array(lengths, dtype=np.int64))]).astype(np.int64)


def make_pairs(tokens: Tokens, max_length: int, seed: int, first_document: int = 0) -> np.ndarray:
    """Pairs of segments of all documents (the procedure of `create_pretraining_data` in BERT's own code).

    Sentences of a document are gathered until they fill a pair and cut in two at random. In half of the pairs, and
    wherever there is one sentence alone, the second segment is replaced by sentences of another document, and the
    sentences not used start the next pair. A pair that is too long loses tokens at the ends of its longer segment.
    Unlike there each pair, and not each document, may be a shorter one.

    Args:
        max_length: tokens of a pair with its special tokens.
        seed: with its number it decides what becomes of a document.
        first_document: number of the first document.
    Returns:
        [pairs, 5] int64: first and last token (exclusive) of each segment, and 1 for a replaced second one, else 0.
    Raises:
        ValueError: fewer than two documents, so that there is no other one.
    """
    if tokens.num_documents < 2:
        raise ValueError("next-sentence pairs need at least two documents, divided by a blank line")
    found: list[tuple[int, ...]] = []
    for document in range(tokens.num_documents):
        generator = seeded(seed, "pairs", first_document + document)
        found += _pairs_of(tokens, document, max_length - NUM_SPECIAL, generator)
    return np.array(found, dtype=np.int64).reshape(-1, 5)


def _pairs_of(tokens: Tokens, document: int, room: int, generator: torch.Generator) -> Iterator[tuple[int, ...]]:
    starts, sentence, end = tokens.sentences, int(tokens.documents[document]), int(tokens.documents[document + 1])
    while sentence < end:
        draws: list[float] = torch.rand(6, generator=generator, dtype=torch.float64).tolist()
        target = 2 + int(draws[1] * (room - 1)) if draws[0] < SHORT_FRACTION else room
        first = int(starts[sentence])
        # the sentence that reaches the target belongs to the pair
        stop = min(end, max(sentence + 1, int(np.searchsorted(starts, first + target))))
        cut = sentence + 1 + int(draws[2] * (stop - sentence - 1))
        a = (first, int(starts[cut]))
        is_random = stop - sentence == 1 or draws[3] < 0.5
        if is_random:
            b, sentence = _elsewhere(tokens, document, target - (a[1] - a[0]), draws[4], draws[5]), cut
        else:
            b, sentence = (a[1], int(starts[stop])), stop
        yield (*_truncated(a, b, room, generator), int(is_random))


def _elsewhere(tokens: Tokens, document: int, target: int, which: float, where: float) -> tuple[int, int]:
    """At least `target` tokens, as far as there are so many, from a random sentence of another document on."""
    other = int(which * (tokens.num_documents - 1))
    other += other >= document
    begin, end = int(tokens.documents[other]), int(tokens.documents[other + 1])
    begin += int(where * (end - begin))
    first = int(tokens.sentences[begin])
    stop = min(end, max(begin + 1, int(np.searchsorted(tokens.sentences, first + target))))
    return first, int(tokens.sentences[stop])


def _truncated(
    a: tuple[int, int], b: tuple[int, int], room: int, generator: torch.Generator
) -> tuple[int, int, int, int]:
    """Both segments without as many tokens of the longer one as are too many, each from the front or back by chance."""
    sizes = [a[1] - a[0], b[1] - b[0]]
    surplus = sum(sizes) - room
    if surplus <= 0:
        return (*a, *b)
    longer = sizes[0] <= sizes[1]  # the index of the longer segment
    alone = min(surplus, abs(sizes[0] - sizes[1]))
    rest = surplus - alone
    lost = [rest // 2, rest // 2 + rest % 2]  # equally long ones take turns, the second first
    lost[longer] += alone
    front = [int(torch.randint(2, (count,), generator=generator).sum()) for count in lost]
    return (a[0] + front[0], a[1] - lost[0] + front[0], b[0] + front[1], b[1] - lost[1] + front[1])


class Pairs(torch.utils.data.Dataset):
    """Pairs as items for `MaskingCollator`.

    Args:
        tokens: what `bounds` point into.
        bounds: what `make_pairs` returns.
        special: those that go between the segments.
        masking: given for pairs to score: they are masked here, always in the same way.
    """

    column_names = ("input_ids", "token_type_ids", "next_sentence_label")

    def __init__(self, tokens: Tokens, bounds: np.ndarray, special: SpecialIds, masking: Masking | None = None):
        self.tokens, self.bounds, self.special, self.masking = tokens, bounds, special, masking

    def __len__(self) -> int:
        return len(self.bounds)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = item_of(self.tokens.ids, self.bounds[index], self.special)
        if self.masking is not None:
            # the seed is fixed, so that the losses of all runs are of the same tokens
            ids, labels = self.masking.apply(item["input_ids"][None], seeded(0, "validation mask", int(index)))
            item |= {"input_ids": ids[0], "labels": labels[0]}
        return item


def item_of(ids: np.ndarray, bounds: np.ndarray, special: SpecialIds) -> dict[str, Any]:
    """A pair with its special tokens; `bounds` is a row of what `make_pairs` returns."""
    a_start, a_stop, b_start, b_stop, is_random = bounds.tolist()
    size = a_stop - a_start + 2
    tokens = np.empty(size + b_stop - b_start + 1, dtype=np.int64)
    tokens[0], tokens[size - 1], tokens[-1] = special.cls, special.sep, special.sep
    tokens[1 : size - 1] = ids[a_start:a_stop]
    tokens[size:-1] = ids[b_start:b_stop]
    types = np.zeros(len(tokens), dtype=np.int64)
    types[size:] = 1
    return {"input_ids": tokens, "token_type_ids": types, "next_sentence_label": is_random}
