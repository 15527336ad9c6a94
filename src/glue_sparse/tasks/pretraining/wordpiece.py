"""Tokenizers of pre-training: one that is there already, or a WordPiece one trained on the text."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from tqdm.auto import tqdm
from transformers import BertTokenizer, PreTrainedTokenizerBase

from glue_sparse.models.tokenizers import load_tokenizer
from glue_sparse.tasks.corpus import Document

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUES = "##"
"""How a piece starts that goes on with the word before it."""

SMALLEST = 256
_MAX_CHARACTERS = 1000
_MAX_DOCUMENTS = 200_000
"""Documents that a tokenizer is trained on; more of them hardly change it."""


def load(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model or a folder.

    Raises:
        ValueError: not to be had, or without a special token that masked-LM pre-training needs.
    """
    tokenizer = load_tokenizer(source)
    for token in ("mask_token", "cls_token", "sep_token"):
        if getattr(tokenizer, token) is None:
            raise ValueError(f"the tokenizer of {source} has no {token.replace('_', ' ')}, which masked_lm needs: give "
                             "another `tokenizer`, or a model from scratch")  # fmt: skip
    return tokenizer


def train(documents: Iterable[Document], vocab_size: int) -> BertTokenizer:
    """An uncased WordPiece tokenizer of at most `vocab_size` tokens, a function of the text; raises as `learn`."""
    return of_vocabulary(learn(documents, vocab_size))


def of_vocabulary(vocabulary: dict[str, int]) -> BertTokenizer:
    """The uncased tokenizer with these tokens, by their numbers."""
    return BertTokenizer(vocab=vocabulary, do_lower_case=True)


def learn(documents: Iterable[Document], vocab_size: int) -> dict[str, int]:
    """Tokens of an uncased WordPiece tokenizer with their numbers.

    Raises:
        ValueError: no text, or a vocabulary too small to hold the alphabet.
    """
    if vocab_size < SMALLEST:
        raise ValueError(f"`vocab_size` must be at least {SMALLEST}, got {vocab_size}")
    normalizer = normalizers.BertNormalizer(lowercase=True)
    counts: Counter[str] = Counter()
    for sentence in _sentences(documents, "Count characters"):
        counts.update(normalizer.normalize_str(sentence))
    alphabet = _alphabet(counts, vocab_size)
    if not alphabet:
        raise ValueError("the training text is empty: a tokenizer cannot be trained on it")
    raw = Tokenizer(models.WordPiece(unk_token=SPECIAL[1]))
    raw.normalizer, raw.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()  # pyright: ignore
    # The trainer numbers pieces of one character in the order of a hash table and breaks ties by number; as special
    # tokens they are numbered in the order given, which makes the result the same each time.
    pieces = [*SPECIAL, *alphabet, *(CONTINUES + character for character in alphabet)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=pieces,  # pyright: ignore[reportArgumentType]
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix=CONTINUES,
        show_progress=False,
    )
    raw.train_from_iterator(_sentences(documents, "Train the tokenizer"), trainer)
    return raw.get_vocab()


def digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of a tokenizer's vocabulary in the order of its numbers."""
    vocabulary = sorted((number, token) for token, number in tokenizer.get_vocab().items())
    return hashlib.sha256(repr(vocabulary).encode()).hexdigest()


def _alphabet(counts: Counter[str], vocab_size: int) -> list[str]:
    """The most frequent characters, in order; each costs two tokens, so that a small vocabulary has fewer of them."""
    limit = min(_MAX_CHARACTERS, max(100, vocab_size // 16))
    ranked = sorted((c for c in counts if not c.isspace()), key=lambda c: (-counts[c], c))
    return sorted(ranked[:limit])


def _sentences(documents: Iterable[Document], task: str) -> Iterator[str]:
    for document in tqdm(islice(documents, _MAX_DOCUMENTS), desc=task, unit=" documents", disable=None):
        yield from document
