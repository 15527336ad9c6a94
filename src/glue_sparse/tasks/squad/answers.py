"""From start and end logits of windows to answers in words."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glue_sparse.tasks.squad.windows import Window


@dataclass(frozen=True)
class Answer:
    """A piece of a context, under the names of the n-best file of BERT's authors."""

    text: str
    probability: float
    """Among the answers kept for this question."""
    start_logit: float
    end_logit: float


def best_answers(
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    windows: Sequence[Window],
    contexts: Sequence[str],
    n_best_size: int,
    max_answer_length: int,
) -> list[list[Answer]]:
    """The best answers to each question over all its windows, the best one first; none when no span is valid.

    A span is valid that lies in the context, ends where it starts or later, has at most `max_answer_length` tokens,
    finite logits, and one of the `n_best_size` largest start and end logits of its window. Equal scores go by the order
    of windows and tokens; of equal texts the best one is kept.

    Args:
        start_logits, end_logits: [windows, positions]; what stands outside a window's context is not looked at.
        contexts: one per question.
        n_best_size: also the most answers per question.
    Raises:
        ValueError: not as many logits as windows.
    """
    if not len(start_logits) == len(end_logits) == len(windows):
        raise ValueError(f"{len(start_logits)} outputs do not fit the {len(windows)} windows")
    by_question: list[list[np.ndarray]] = [[] for _ in contexts]
    for start, end, window in zip(start_logits, end_logits, windows, strict=True):
        by_question[window.question].append(_candidates(start, end, window, n_best_size, max_answer_length))
    return [
        _choose(np.concatenate(found), context, n_best_size) if found else []
        for found, context in zip(by_question, contexts, strict=True)
    ]


def _candidates(start: np.ndarray, end: np.ndarray, window: Window, best: int, longest: int) -> np.ndarray:
    """[candidates, 4]: first character, the one after the last, start logit, end logit; in the order of the tokens."""
    inside = slice(window.first, window.first + len(window.spans))
    start, end = start[inside].astype(np.float64), end[inside].astype(np.float64)
    starts, ends = _largest(start, best), _largest(end, best)
    length = ends[None, :] - starts[:, None] + 1
    finite = np.isfinite(start[starts])[:, None] & np.isfinite(end[ends])[None, :]
    i, j = np.nonzero((length >= 1) & (length <= longest) & finite)
    i, j = starts[i], ends[j]
    return np.stack([window.spans[i, 0], window.spans[j, 1], start[i], end[j]], axis=1)


def _largest(logits: np.ndarray, count: int) -> np.ndarray:
    """Positions of the largest logits, of equal ones the first, in ascending order."""
    return np.sort(np.argsort(-logits, kind="stable")[:count])


def _choose(candidates: np.ndarray, context: str, best: int) -> list[Answer]:
    scores = candidates[:, 2] + candidates[:, 3]
    chosen: dict[str, int] = {}
    for row in np.argsort(-scores, kind="stable"):
        text = text_of(context, int(candidates[row, 0]), int(candidates[row, 1]))
        if text:
            chosen.setdefault(text, int(row))
        if len(chosen) == best:
            break
    rows = list(chosen.values())
    weights = np.exp(scores[rows] - scores[rows].max(initial=-np.inf))
    probabilities = weights / weights.sum()
    return [
        Answer(text, float(probability), float(candidates[row, 2]), float(candidates[row, 3]))
        for (text, row), probability in zip(chosen.items(), probabilities, strict=True)
    ]


def text_of(context: str, start: int, end: int) -> str:
    """The characters [start, end) without spaces around them, with the accents that belong to the last one.

    A tokenizer that strips accents leaves those after a token's last letter out of its span.
    """
    while end < len(context) and unicodedata.combining(context[end]):
        end += 1
    return context[start:end].strip()
