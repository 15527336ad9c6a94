"""Labels as a user's own files write them: classes by name, numbers, and marks that there is none."""

import math
import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

NO_LABEL = "-"
"""What stands for no label by default, as in SNLI."""
_WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]*)([.]0*)?")
"""A text that is a whole number; 007 (a postal code) and 1e5 (a product) stay the names they are."""


def label_names(labels: Sequence[Any]) -> tuple[str, ...]:
    """Sorted names of the classes, numbers in numerical order; empty when the labels are a regression's."""
    numbers = [number for number in map(_exact, labels) if number is not None]
    if len(numbers) < len(labels):
        return tuple(sorted({name_of(label) for label in labels}))
    if all(_is_whole(number) for number in numbers):
        return tuple(sorted({name_of(label) for label in labels}, key=lambda name: (_exact(name) or 0, name)))
    return ()


def name_of(label: Any) -> str:
    """How a class is called: `1`, `1.0` and 1 are the same one, to the last digit of however large a number.

    Texts that Unicode holds for the same (an accent by itself, or with its letter) are the same one too.
    """
    number, text = _exact(label), unicodedata.normalize("NFC", str(label).strip())
    whole = number is not None and (_WHOLE.fullmatch(text) if isinstance(label, str) else _is_whole(number))
    return str(int(number)) if number is not None and whole else text


def number_of(label: Any) -> float | None:
    """A regression's label; none where it is no finite number."""
    number = _exact(label)
    return None if number is None else float(number)


def mark_of(mark: str | None, labels: Sequence[Any]) -> str | None:
    """What says that a row has no label: `mark`, else `NO_LABEL`, but nothing where a label is `+`, its opposite."""
    if mark is not None:
        return mark.strip()
    return None if any(isinstance(label, str) and label.strip() == "+" for label in labels) else NO_LABEL


def is_marked(label: Any, mark: str | None) -> bool:
    """Whether a cell says so; an empty mark means an empty cell."""
    if label is None or label != label:
        return mark == ""
    return isinstance(label, str) and label.strip() == mark


def not_finite(labels: Sequence[Any]) -> int | None:
    """Place of an infinite label, or one too large, among numbers with fractions: a regression that has none there."""
    others = [i for i, label in enumerate(labels) if _exact(label) is None]
    if not others or not all(_is_number(labels[i]) for i in others):
        return None
    numbers = [number for number in map(_exact, labels) if number is not None]
    return None if all(_is_whole(number) for number in numbers) else others[0]


def _is_number(label: Any) -> bool:
    if isinstance(label, bool):
        return False
    try:
        return not Decimal(label.strip() if isinstance(label, str) else label).is_nan()
    except (InvalidOperation, TypeError, ValueError):
        return False


def _exact(label: Any) -> Decimal | None:
    """A finite number with all of its digits, also from a text that is one."""
    if isinstance(label, bool) or isinstance(label, str) and "_" in label:  # Python's own way to group digits
        return None
    try:
        number = Decimal(label.strip() if isinstance(label, str) else label)
        return number if math.isfinite(float(number)) else None
    except (InvalidOperation, TypeError, ValueError, OverflowError):
        return None


def _is_whole(number: Decimal) -> bool:
    return number == number.to_integral_value()
