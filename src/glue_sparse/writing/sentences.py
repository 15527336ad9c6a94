"""Sentences for a reader: one line of bounded length, whatever was put into them."""

import re
import sys

LONGEST = 300
"""Characters of a sentence."""
_WORDS = (120, 60, 30)
"""Characters that a word of a sentence that is too long keeps; the first of these that is short enough."""
_CUT = " ... "


def sentence(text: str, longest: int = LONGEST) -> str:
    """One line of at most `longest` characters, whose start says what is wrong and whose end says what to do.

    What cannot be printed is escaped. Long words, names of files mostly, are shortened first, each in its middle; where
    that is not enough, the middle of the sentence goes.
    """
    line = one_line(text)
    for most in _WORDS:
        if len(line) <= longest:
            return line
        line = re.sub(rf"\S{{{most + 1},}}", lambda word, most=most: _without_middle(word[0], most, "..."), line)
    return _without_middle(line, longest, _CUT)


def one_line(text: str) -> str:
    """A text with what cannot be printed, line breaks too, escaped."""
    return "".join(one if one.isprintable() else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _without_middle(text: str, longest: int, cut: str) -> str:
    if len(text) <= longest:
        return text
    kept = longest - len(cut)
    return f"{text[: kept - kept // 3]}{cut}{text[len(text) - kept // 3 :]}"


def say(text: str) -> None:
    """Print one line to stderr, on a line of its own: bars of progress that are still open are closed first."""
    bars = getattr(sys.modules.get("tqdm.std"), "tqdm", None)
    for bar in [*getattr(bars, "_instances", ())]:
        bar.close()
        if not hasattr(bar, "start_t"):  # a signal came while it was opened, and `close` leaves its line as it is
            print(file=sys.stderr)
    print(sentence(text), file=sys.stderr)
