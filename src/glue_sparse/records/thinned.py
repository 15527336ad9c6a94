"""The history of a run in few characters: each kind of log with its names once, and long kinds thinned."""

from collections.abc import Sequence
from typing import Any

from glue_sparse.writing.fields import typed

MOST = 40
"""Logs of one kind that stay, evaluations apart."""
_DIGITS = 7
"""Significant ones of a logged number."""
_TIMES = ("_runtime", "_samples_per_second", "_steps_per_second")
_UNREAD = {"grad_norm", "learning_rate", "total_flos"}
"""What transformers logs and no table, figure or claim reads."""


def packed(history: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A history as `spread` reads it: names of each kind of log, and its values in the order of the run."""
    logs = [{key: _rounded(value) for key, value in log.items() if _is_read(key)} for log in history]
    kinds: dict[tuple[str, ...], list[int]] = {}
    for index, log in enumerate(logs):
        kinds.setdefault(tuple(sorted(log)), []).append(index)
    numbers = {kind: number for number, kind in enumerate(kinds)}
    kept = sorted(index for kind, some in kinds.items() for index in (some if _is_evaluation(kind) else _thinned(some)))
    rows = [[numbers[kind := tuple(sorted(logs[index]))], *(logs[index][key] for key in kind)] for index in kept]
    return {"names": [[*kind] for kind in kinds], "logs": rows}


def spread(facts: Any) -> list[dict[str, Any]]:
    """The history that `packed` packed, without what it left out.

    Raises:
        ValueError: it is none.
    """
    parts = typed(dict[str, list[list[Any]]], facts, "`history` of it")
    names = parts.get("names", [])
    history = []
    for kind, *values in parts.get("logs", []):
        if kind not in range(len(names)) or len(names[kind]) != len(values):
            raise ValueError("`history.logs` of it does not fit `history.names`")
        history.append(dict(zip(names[kind], values, strict=True)))
    return history


def _is_read(key: str) -> bool:
    return not key.endswith(_TIMES) and key not in _UNREAD


def _is_evaluation(kind: Sequence[str]) -> bool:
    return any(key.startswith("eval_") for key in kind)


def _thinned(some: list[int]) -> list[int]:
    """At most `MOST` of them, evenly spread, the first and the last among them."""
    last = len(some) - 1
    return some if last < MOST else [some[round(number * last / (MOST - 1))] for number in range(MOST)]


def _rounded(value: Any) -> Any:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
