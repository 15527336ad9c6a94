"""The official metrics of GLUE and SQuAD, computed without a network."""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef

GLUE: dict[str, tuple[str, ...]] = {
    "cola": ("matthews_correlation",),
    "mnli": ("accuracy",),
    "mrpc": ("accuracy", "f1"),
    "qnli": ("accuracy",),
    "qqp": ("accuracy", "f1"),
    "rte": ("accuracy",),
    "sst2": ("accuracy",),
    "stsb": ("pearson", "spearmanr"),
    "wnli": ("accuracy",),
}
"""What each GLUE task reports (Wang et al. 2019, table 1)."""

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Share of `predictions` equal to `labels`, both (rows,)."""
    return float(np.mean(predictions == labels))


def f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Binary F1 of (rows,) integers, class 1 positive; 0 when there is no true positive."""
    return float(f1_score(labels, predictions, zero_division=0.0))  # pyright: ignore[reportArgumentType]


def matthews_correlation(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Matthews correlation of (rows,) integers; 0 when either is constant."""
    return float(matthews_corrcoef(labels, predictions))


def pearson(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Pearson correlation of (rows,) numbers; 0 when either is constant."""
    if np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return 0.0
    return float(stats.pearsonr(predictions, labels)[0])  # pyright: ignore[reportArgumentType]


def spearmanr(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Spearman's rank correlation of (rows,) numbers; 0 when either is constant."""
    return pearson(stats.rankdata(predictions), stats.rankdata(labels))


METRICS = {f.__name__: f for f in (accuracy, f1, matthews_correlation, pearson, spearmanr)}


def score(names: Sequence[str], predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The metrics called `names`, and their mean as `combined_score` when there are two or more.

    `predictions` and `labels` are (rows,): class indices, or numbers for a regression.
    """
    if predictions.shape != labels.shape or not labels.size:
        raise ValueError(f"{predictions.shape} predictions cannot be scored against {labels.shape} labels")
    if np.issubdtype(predictions.dtype, np.floating):
        predictions, labels = predictions.astype(np.float64), labels.astype(np.float64)
    values = {name: METRICS[name](predictions, labels) for name in names}
    if len(values) > 1:
        values["combined_score"] = float(np.mean(list(values.values())))
    return values


def glue(task: str, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The official metrics of a GLUE task, for example `glue("mrpc", classes, labels)`."""
    return score(GLUE[task], predictions, labels)


def normalise(answer: str) -> str:
    """An answer as SQuAD v1.1 compares it: lower case, without ASCII punctuation and articles, single spaces."""
    bare = answer.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLE.sub(" ", bare).split())


def exact_match(answer: str, reference: str) -> float:
    """1 when both answers are the same after `normalise`, else 0."""
    return float(normalise(answer) == normalise(reference))


def token_f1(answer: str, reference: str) -> float:
    """F1 of the words of both answers after `normalise`; 0 when they share none, also when both are empty."""
    words, expected = normalise(answer).split(), normalise(reference).split()
    shared = (Counter(words) & Counter(expected)).total()
    return 2 * shared / (len(words) + len(expected)) if shared else 0.0


def squad(answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Official metrics of SQuAD v1.1 (Rajpurkar et al., 2016, arXiv 1606.05250), from 0 to 1.

    Args:
        answers: one per question.
        references: all reference answers of each question; the best match counts.
    Raises:
        ValueError: no questions, or not as many answers as questions.
    """
    if len(answers) != len(references) or not answers:
        raise ValueError(f"{len(answers)} answers cannot be scored against {len(references)} questions")

    def mean_of_best(match: Callable[[str, str], float]) -> float:
        pairs = zip(answers, references, strict=True)
        return float(np.mean([max(match(answer, reference) for reference in of_one) for answer, of_one in pairs]))

    return {"exact_match": mean_of_best(exact_match), "f1": mean_of_best(token_f1)}


def keys(names: Sequence[str]) -> tuple[str, ...]:
    """What `score` calls its values."""
    return (*names, "combined_score") if len(names) > 1 else (*names,)


def main_metric(names: Sequence[str]) -> str:
    """The one number a table shows: the only metric, or the mean of several."""
    return names[0] if len(names) == 1 else "combined_score"
