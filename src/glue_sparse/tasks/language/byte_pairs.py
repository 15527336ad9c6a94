"""A tokenizer trained on the text: pairs of bytes, so that there is no unknown character (Radford et al., 2019)."""

from collections.abc import Iterable
from itertools import islice

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<|end|>")
"""By their numbers, which `models.llama_family` knows: what fills rows up, and what ends a text."""

_MAX_DOCUMENTS = 200_000
"""Documents that a tokenizer is trained on; more of them hardly change it."""


def train(documents: Iterable[list[str]], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of at most `vocab_size` tokens, a function of the text alone.

    Raises:
        ValueError: fewer tokens than bytes and special tokens.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size < len(alphabet) + len(SPECIAL):
        raise ValueError(f"`vocab_size` must be at least {len(alphabet) + len(SPECIAL)}, one for each byte and "
                         f"{len(SPECIAL)} special ones, got {vocab_size}")  # fmt: skip
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    raw.decoder = decoders.ByteLevel()  # pyright: ignore
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL],  # pyright: ignore[reportArgumentType]
        initial_alphabet=alphabet,
        show_progress=False,
    )
    told = tqdm(islice(documents, _MAX_DOCUMENTS), desc="Train the tokenizer", unit=" documents", disable=None)
    raw.train_from_iterator((text for document in told for text in document), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token=SPECIAL[0], eos_token=SPECIAL[1])
