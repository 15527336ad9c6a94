"""Perplexity of a language model on a text, cut into windows whose counted tokens do not depend on the model."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from glue_sparse.core.batches import evaluating
from glue_sparse.core.options import Kind
from glue_sparse.core.randomness import seeded
from glue_sparse.models.language_models import LanguageModel, logits_of
from glue_sparse.writing.characters import check_file, fault_of, utf8

MASKED_SHARE = 0.15
"""Share of a window's tokens that a masked model has to predict, as in BERT's training."""
NOT_COUNTED = -100


class Window(NamedTuple):
    """What a model sees at once, and what is counted."""

    ids: Tensor
    """[tokens] input of the model."""
    targets: Tensor
    """[tokens] the token that each output should predict, or `NOT_COUNTED`."""


@dataclass(frozen=True)
class Tokens:
    """A text as tokens.

    Attributes:
        ids: [tokens].
        before, after: special tokens to put around each window of a masked model; empty for a causal one.
    """

    ids: Tensor
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    def framed(self, ids: Tensor) -> Tensor:
        """A piece of the text with the special tokens around it."""
        return torch.cat([ids.new_tensor(self.before), ids, ids.new_tensor(self.after)])

    def first(self, count: int | None) -> "Tokens":
        """The text's first `count` tokens, or all; ValueError for fewer than 2."""
        if count is not None and count < 2:
            raise ValueError(f"perplexity needs 2 tokens at least, not {count}")
        return replace(self, ids=self.ids[:count])

    def room(self, length: int) -> int:
        """Tokens of the text in a window of `length` tokens."""
        return length - len(self.before) - len(self.after)


@dataclass(frozen=True)
class Perplexity:
    """exp(loss), where loss is the mean negative log likelihood of the counted tokens, in nats."""

    perplexity: float
    loss: float
    num_tokens: int
    """Counted tokens."""
    kind: Kind
    """For `masked` it is the pseudo-perplexity of tokens behind [MASK], not comparable with that of a causal model."""


def read_text(path: Path) -> str:
    """A text file whole.

    Raises:
        ValueError: there is no file, it is empty, not UTF-8, or holds what no text does.
    """
    check_file(path)
    with utf8(path):
        text = path.read_text(encoding="utf-8")
    if fault := fault_of(text):
        raise ValueError(f"{path} {fault}")
    if not text.strip():
        raise ValueError(f"{path} is empty")
    return text


def tokenize(language: LanguageModel, text: str) -> Tokens:
    """The whole text as tokens; a causal model's begins with the special tokens that its tokenizer puts first.

    Raises:
        ValueError: fewer than 2 tokens, or tokens for which the model has no embedding.
    """
    encoded = language.tokenizer(text, return_special_tokens_mask=True, verbose=False)
    ids, special = torch.tensor(encoded["input_ids"]).long(), encoded["special_tokens_mask"]
    first = special.index(0) if 0 in special else len(special)
    last = len(special) - special[::-1].index(0) if 0 in special else len(special)
    if last - first < 2:
        raise ValueError(f"the text has {last - first} tokens, and perplexity needs 2 at least")
    if int(ids.max()) >= language.num_words:
        raise ValueError(f"the text has tokens beyond the {language.num_words:,} of {language.name}: not its tokenizer")
    if language.kind == "causal":
        return Tokens(ids[:last])
    return Tokens(ids[first:last], tuple(ids[:first].tolist()), tuple(ids[last:].tolist()))


def check_length(language: LanguageModel, length: int) -> None:
    """Raise a ValueError for windows of more tokens than the model has positions."""
    if language.max_length is not None and length > language.max_length:
        raise ValueError(f"windows of {length} tokens exceed the {language.max_length} positions of {language.name}")


def windows(
    language: LanguageModel, tokens: Tokens, length: int, *, stride: int | None = None, seed: int = 0
) -> list[Window]:
    """Cut a text into windows; the last may be shorter.

    Causal: a window begins every `stride` tokens, and counts the tokens that no window before has seen, but never its
    own first one, which nothing precedes. Masked: windows lie side by side, each between the tokenizer's special
    tokens, and `MASKED_SHARE` of the tokens that are not special (one at least) are drawn to be [MASK] and counted.
    What is drawn depends on (seed, window number) alone.

    Args:
        length: tokens in a window, special tokens included.
        stride: 1 to `length`; by default `length`, for causal models only.
    Raises:
        ValueError: lengths that do not fit, a stride for a masked model, or a tokenizer without [MASK].
    """
    check_length(language, length)
    if tokens.room(length) < (2 if language.kind == "causal" else 1):
        raise ValueError(f"windows of {length} tokens have no room for a text")
    if language.kind == "causal":
        return list(_causal(tokens.ids, length, length if stride is None else stride))
    if stride is not None:
        raise ValueError("a stride goes with a causal model; the windows of a masked one lie side by side")
    if language.tokenizer.mask_token_id is None:
        raise ValueError(f"the tokenizer of {language.name} has no mask token")
    return list(_masked(language, tokens, length, seed))


def _causal(ids: Tensor, length: int, stride: int) -> Iterator[Window]:
    if not 1 <= stride <= length:
        raise ValueError(f"a stride is between 1 and the window's {length} tokens, not {stride}")
    seen = 0
    for start in range(0, len(ids), stride):
        piece = ids[start : start + length]
        targets = torch.full_like(piece, NOT_COUNTED)
        targets[:-1] = piece[1:]
        targets[: max(0, seen - start - 1)] = NOT_COUNTED
        if len(piece) > 1:
            yield Window(piece, targets)
        seen = start + len(piece)
        if seen == len(ids):
            break


def _masked(language: LanguageModel, tokens: Tokens, length: int, seed: int) -> Iterator[Window]:
    special, mask = torch.tensor(language.tokenizer.all_special_ids), language.tokenizer.mask_token_id
    assert isinstance(mask, int)
    for number, piece in enumerate(tokens.ids.split(tokens.room(length))):
        ids = tokens.framed(piece)
        allowed = ~torch.isin(ids, special)
        order = torch.rand(len(ids), generator=seeded(seed, "masked tokens", number))
        count = max(1, round(MASKED_SHARE * int(allowed.sum())))
        chosen = order.masked_fill(~allowed, 2.0).argsort(stable=True)[:count]
        chosen = chosen[allowed[chosen]]
        targets = torch.full_like(ids, NOT_COUNTED)
        targets[chosen] = ids[chosen]
        if len(chosen):
            yield Window(ids.index_fill(0, chosen, mask), targets)


def perplexity(
    language: LanguageModel, windows: Sequence[Window], *, batch_size: int = 8, description: str | None = None
) -> Perplexity:
    """Perplexity over all counted tokens: float32 logits of one batch at a time, losses summed in float64.

    Args:
        description: what a progress bar says; none shows no bar.
    Raises:
        ValueError: nothing is counted, the loss is not finite, or a batch of no window.
    """
    if batch_size < 1:
        raise ValueError(f"a batch has 1 window at least, not {batch_size}")
    network, total, num_tokens = language.network, 0.0, 0
    batches = list(_batches(windows, batch_size))
    with evaluating(network), torch.no_grad():
        for batch in tqdm(batches, desc=description, unit="batch", leave=False, disable=description is None):
            logits = logits_of(network, torch.stack([window.ids for window in batch]).to(network.device))
            for of_window, window in zip(logits, batch, strict=True):
                places = (window.targets != NOT_COUNTED).nonzero().squeeze(1).to(network.device)
                targets = window.targets[window.targets != NOT_COUNTED].to(network.device)
                losses = F.cross_entropy(of_window[places].float(), targets, reduction="none")
                total += float(losses.cpu().double().sum())
                num_tokens += len(targets)
    if not num_tokens:
        raise ValueError("the text has no token that could be predicted")
    loss = total / num_tokens
    if not loss < math.log(torch.finfo(torch.float64).max):
        raise ValueError(f"the loss of {language.name} is {loss}, which has no perplexity: try another dtype")
    return Perplexity(math.exp(loss), loss, num_tokens, language.kind)


def _batches(windows: Sequence[Window], size: int) -> Iterator[list[Window]]:
    """Neighbours of equal length, so that nothing is padded."""
    batch: list[Window] = []
    for window in windows:
        if batch and (len(batch) == size or len(window.ids) != len(batch[0].ids)):
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch
