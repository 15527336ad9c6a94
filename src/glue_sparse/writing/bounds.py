"""From where to where a number may be: a fact of every flag, and a check for arguments of the library."""

from argparse import ArgumentTypeError
from dataclasses import dataclass
from numbers import Real
from typing import Any

LARGEST = 2.0**31 - 1
"""The end of numbers without another; nothing that is counted or measured here is larger."""


@dataclass(frozen=True)
class Bounds:
    """The finite numbers that make sense for something.

    Attributes:
        least, most: the ends.
        is_above, is_below: whether the number must be above the least, or below the most, and not these themselves.
        also: numbers outside that have a meaning, as -1 for none.
        is_share: whether a number below 1 is a share of something, and one from 1 on counts, so that it is whole.
    """

    least: float = -LARGEST
    most: float = LARGEST
    is_above: bool = False
    is_below: bool = False
    also: tuple[float, ...] = ()
    is_share: bool = False

    def __contains__(self, number: float) -> bool:
        if number in self.also:
            return True
        above = number > self.least if self.is_above else number >= self.least
        below = number < self.most if self.is_below else number <= self.most
        return above and below and not (self.is_share and number > 1 and number != int(number))

    def __str__(self) -> str:
        lower = f"{'above' if self.is_above else 'at least'} {self.least:.10g}" if self.least != -LARGEST else ""
        upper = f"{'below' if self.is_below else 'at most'} {self.most:.10g}" if self.most != LARGEST else ""
        if lower and upper:
            ends = ("(" if self.is_above else "[", ")" if self.is_below else "]")
            lower, upper = f"in {ends[0]}{self.least:.10g}, {self.most:.10g}{ends[1]}", ""
        parts = [lower, upper, "whole from 1 on" if self.is_share else ""]
        others = [f"or {one:g}" for one in self.also]
        return " ".join([" and ".join(part for part in parts if part) or "a finite number", *others])

    def problem(self, value: Any, kind: type = float) -> str | None:
        """What a number must be, where it is not; None where it is good.

        Args:
            kind: int where it must be whole.
        """
        if isinstance(value, bool) or not isinstance(value, Real):
            return f"must be a number, not {str(value)[:40]!r}"
        number: Any = value if isinstance(value, int) else float(value)
        if number in self:
            return None if kind is not int or number == int(number) else f"must be a whole number, not {value}"
        is_too_large = abs(number) > LARGEST
        wanted = f"from {self.least:.10g} to {self.most:.10g}" if is_too_large else str(self)
        return f"must be {wanted}, got {str(value)[:40]}"


FINITE = Bounds()
NOT_NEGATIVE = Bounds(0)
POSITIVE = Bounds(0, is_above=True)
COUNT = Bounds(1)
SHARE = Bounds(0, 1)
DENSITY = Bounds(0, 1, is_above=True)
BELOW_ONE = Bounds(0, 1, is_below=True)
STEPS = Bounds(0, is_above=True, is_share=True)
"""Steps, or below 1 a share of a run."""
SEED = Bounds(0, 2**32 - 1)


def check(name: str, values: Any, bounds: Bounds, kind: type = float) -> None:
    """Raise a ValueError for a number, or one of several, that is out of its bounds; None is no number to check.

    Args:
        name: of the argument.
    """
    for value in values if isinstance(values, list | tuple) else (values,):
        problem = None if value is None else bounds.problem(value, kind)
        if problem:
            raise ValueError(f"`{name}` {problem}")


@dataclass(frozen=True)
class Number:
    """A number as it is typed, for `ArgumentParser.add_argument(type=...)`."""

    kind: type
    bounds: Bounds = FINITE

    def __call__(self, text: str) -> Any:
        """Its value; an ArgumentTypeError says what is wrong with it."""
        try:
            number = self.kind(text)
        except ValueError as error:
            raise ArgumentTypeError(f"invalid {self.kind.__name__} value: {text[:40]!r}") from error
        if problem := self.bounds.problem(number, self.kind):
            raise ArgumentTypeError(problem)
        return number
