"""Questions with their contexts as overlapping windows of tokens, and where in each window the answer lies."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

LEAST_QUESTION = 8
"""Tokens that a question can keep in any case, and least number of new context tokens per window."""
SPANS = ("question", "first", "starts", "ends")
"""Columns that say where a window comes from; no model reads them."""


@dataclass(frozen=True)
class Window:
    """Which part of which context a window shows."""

    question: int
    """Row of the question."""
    first: int
    """Position of the first context token in the window."""
    spans: np.ndarray
    """[context tokens, 2]: first character of each in the context, and the one after its last."""


def encode(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, doc_stride: int, keep_spans: bool
) -> Dataset:
    """One row per window: the model's inputs, `start_positions`, `end_positions` and, if kept, the columns `SPANS`.

    Both positions are token positions in the window, of the question's first answer; they are 0, the [CLS] token,
    when the window does not hold the answer whole (Devlin et al., 2019, arXiv 1810.04805).

    Args:
        rows: columns `question`, `context` and `answers`.
        doc_stride: tokens of the context that consecutive windows share.
    Raises:
        ValueError: a tokenizer that cannot do this, or no room beside `doc_stride`.
    """
    check_tokenizer(tokenizer)
    questions = _cut_questions(rows, tokenizer, _longest_question(tokenizer, max_length, doc_stride))

    def windows(batch: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        encoded = tokenizer(
            batch["question"], batch["context"], truncation="only_second", max_length=max_length, stride=doc_stride,
            return_overflowing_tokens=True, return_offsets_mapping=True,
        )  # fmt: skip
        owners, offsets = encoded.pop("overflow_to_sample_mapping"), encoded.pop("offset_mapping")
        found = []
        for i, (owner, of_window) in enumerate(zip(owners, offsets, strict=True)):
            in_context = np.flatnonzero([part == 1 for part in encoded.sequence_ids(i)])
            first = int(in_context[0]) if len(in_context) else 0
            found.append(Window(owner, first, np.array(of_window)[in_context].reshape(-1, 2)))
        columns = {**dict(encoded), **_labels(found, batch["answers"], doc_stride)}
        return {**columns, **_columns(found, numbers)} if keep_spans else columns

    short = rows.remove_columns("question").add_column("question", questions)  # pyright: ignore[reportCallIssue]
    return short.map(windows, batched=True, with_indices=True, remove_columns=short.column_names, desc="Tokenise")


def spans_of(encoded: Dataset) -> list[Window]:
    """The windows of a data set that `encode` made with their spans."""
    rows = encoded.select_columns(list(SPANS)).with_format("numpy")
    return [
        Window(int(row["question"]), int(row["first"]), np.stack([row["starts"], row["ends"]], axis=1))  # pyright: ignore
        for row in rows
    ]


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise a ValueError for a tokenizer that is slow, pads on the left or does not begin with [CLS]."""
    begins = tokenizer("a", "a")["input_ids"][:1] == [tokenizer.cls_token_id]  # pyright: ignore
    right = tokenizer.padding_side == tokenizer.truncation_side == "right"
    if not (tokenizer.is_fast and begins and right):
        raise ValueError(
            "squad needs a fast tokenizer that begins with [CLS] and pads and cuts on the right, as those of BERT, "
            f"RoBERTa and DistilBERT do; {type(tokenizer).__name__} does not"
        )


def _longest_question(tokenizer: PreTrainedTokenizerBase, max_length: int, doc_stride: int) -> int:
    """A question may take half of what `doc_stride` leaves, so that each window moves on by the other half."""
    special = tokenizer.num_special_tokens_to_add(pair=True)
    longest = (max_length - special - doc_stride) // 2
    if longest < LEAST_QUESTION:
        needed = doc_stride + special + 2 * LEAST_QUESTION
        raise ValueError(
            f"`doc_stride` {doc_stride} is too large for `max_length` {max_length}, which would have to be at least "
            f"{needed}; usual are 128 and 384"
        )
    return longest


def _cut_questions(rows: Dataset, tokenizer: PreTrainedTokenizerBase, longest: int) -> list[str]:
    questions = [question.strip() for question in rows["question"]]
    offsets = tokenizer(questions, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    cut = [
        question if len(tokens) <= longest else question[: tokens[longest - 1][1]]
        for question, tokens in zip(questions, offsets, strict=True)  # pyright: ignore[reportArgumentType]
    ]
    if cut != questions:
        count = sum(question != short for question, short in zip(questions, cut, strict=True))
        logger.warning("%d questions longer than %d tokens are cut to leave room for the context", count, longest)
    return cut


def _labels(windows: list[Window], answers: list[dict[str, Any]], doc_stride: int) -> dict[str, list[int]]:
    positions: list[tuple[int, int]] = []
    by_question: dict[int, list[Window]] = {}
    for window in windows:  # the tokenizer keeps the windows of a question together and in order
        by_question.setdefault(window.question, []).append(window)
    for question, of_one in by_question.items():
        start = answers[question]["answer_start"][0]
        positions += _positions(of_one, start, start + len(answers[question]["text"][0]), doc_stride)
    starts, ends = zip(*positions, strict=True)
    return {"start_positions": list(starts), "end_positions": list(ends)}


def _positions(windows: list[Window], start: int, end: int, doc_stride: int) -> list[tuple[int, int]]:
    """First and last token of the characters [start, end) in each window of a question; (0, 0) if not all are there.

    The tokens are found in the whole context, so that a window that ends within them is seen not to hold them all
    even where several tokens stand for the same character, as in byte-level vocabularies.
    """
    spans = np.concatenate([windows[0].spans, *(window.spans[doc_stride:] for window in windows[1:])])
    answer = np.flatnonzero((spans[:, 0] < end) & (spans[:, 1] > start))
    step = len(windows[0].spans) - doc_stride
    found = []
    for number, window in enumerate(windows):
        inside = answer - number * step
        whole = len(inside) and inside[0] >= 0 and inside[-1] < len(window.spans)
        found.append((window.first + int(inside[0]), window.first + int(inside[-1])) if whole else (0, 0))
    return found


def _columns(windows: list[Window], numbers: list[int]) -> dict[str, list[Any]]:
    """The windows as the columns `SPANS`."""
    return {
        "question": [numbers[window.question] for window in windows],
        "first": [window.first for window in windows],
        "starts": [window.spans[:, 0] for window in windows],
        "ends": [window.spans[:, 1] for window in windows],
    }
