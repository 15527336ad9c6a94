"""Labels as data files write them: words, of which some are numbers and some say that there is none."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np

MISSING = ("-", "NA", "N/A", "n/a", "<NA>", "#NA", "#N/A", "null", "NULL", "None", "NaT")
"""What stands for no label: SNLI's -, and what pandas writes and reads as missing; `none` in small letters is a class.

So does what computers write for a number that is none, `nan` and `inf`, in any case and with any sign."""
LARGEST = float(np.finfo(np.float32).max)
"""Models compute in float32, or in bfloat16, whose range is the same."""
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:[.][0-9]*)?|[.][0-9]+)(?:[eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"([+-]?)(0|[1-9][0-9]*)(?:[.]0*)?")
"""A word that is a whole number; 007 (a postal code) and 1e5 (a product) stay the names they are."""
_NO_NUMBER = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)


def word_of(cell: Any) -> str:
    """A cell as its word, whatever the format: JSON's true is `true`; nothing, null and no number are an empty word."""
    if cell is None or cell != cell:
        return ""
    return str(cell).lower() if isinstance(cell, bool) else unicodedata.normalize("NFC", str(cell).strip())


def class_of(word: str) -> str:
    """How a class is called: 1, 1.0 and +1 are one, to the last digit of however large a number."""
    whole = _WHOLE.fullmatch(word)
    return word if whole is None else f"{whole[1].strip('+') if whole[2] != '0' else ''}{whole[2]}"


def classes_of(words: Iterable[str]) -> tuple[str, ...]:
    """The classes in order, numbers by their size."""
    names = {class_of(word) for word in words}
    numbers = {name: number_of(name) for name in names}
    if None in numbers.values():
        return tuple(sorted(names))
    return tuple(sorted(names, key=lambda name: (numbers[name] or 0, name)))


def number_of(word: str) -> Decimal | None:
    """The finite number that a word is, with all of its digits; none where it is another word."""
    try:
        return Decimal(word) if _NUMBER.fullmatch(word) else None
    except InvalidOperation:  # an exponent of more digits than decimals have
        return None


def is_fraction(word: str) -> bool:
    """Whether a word is a number that is not whole."""
    number = number_of(word)
    return number is not None and number != number.to_integral_value()


def no_label(mark: str | None, words: Sequence[str]) -> Callable[[str], bool]:
    """Whether a word says that there is no label: where `mark` is given, that and an empty one alone.

    Args:
        words: all labels; where one is +, - is its opposite.
    """
    if mark is not None:
        none = class_of(word_of(mark))  # -1 is -1.0 too, which pandas makes of it beside an empty cell
        return lambda word: class_of(word) in ("", none)
    usual = {"", *MISSING} - ({"-"} if "+" in words else set())
    return lambda word: word in usual or _NO_NUMBER.fullmatch(word) is not None
