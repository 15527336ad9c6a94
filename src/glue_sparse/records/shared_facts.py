"""Facts of many runs without repetition: what several have in common stands once."""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

Facts = dict[str, Any]
"""As JSON has them; only objects are taken apart, and a list is one fact."""


def common(some: Sequence[Mapping[str, Any]]) -> Facts:
    """What all of them say; of a single one all of it."""
    return reduce(_both, some[1:], {**some[0]}) if some else {}


def _both(one: Mapping[str, Any], other: Mapping[str, Any]) -> Facts:
    found: Facts = {}
    for key in one.keys() & other.keys():
        here, there = one[key], other[key]
        if isinstance(here, dict) and isinstance(there, dict):
            found[key] = _both(here, there)
        elif type(here) is type(there) and here == there:
            found[key] = here
    return found


def without(facts: Mapping[str, Any], known: Mapping[str, Any]) -> Facts:
    """What `common` has left out of one of them."""
    left: Facts = {}
    for key, value in facts.items():
        if key not in known:
            left[key] = value
        elif isinstance(value, dict) and (inner := without(value, known[key])):
            left[key] = inner
    return left


def together(parts: Iterable[Mapping[str, Any]]) -> Facts:
    """What `common` and `without` took apart; where two say something else of a fact, the later is right."""
    found: Facts = {}
    for part in parts:
        for key, value in part.items():
            was = found.get(key)
            found[key] = together((was, value)) if isinstance(was, dict) and isinstance(value, dict) else value
    return found
