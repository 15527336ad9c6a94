"""Cases that an ordinary run of the tests leaves out, where a few of a kind tell as much as all."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def rarely(cases: Iterable[Any], usual: Collection[Any]) -> list[Any]:
    """Parameters for `parametrize`: all but the usual ones are marked slow."""
    return [case if case in usual else pytest.param(*_as_tuple(case), marks=pytest.mark.slow) for case in cases]


def _as_tuple(case: Any) -> tuple[Any, ...]:
    return case if isinstance(case, tuple) else (case,)
