"""Words in messages: what a name might have meant, where a mistake is, and short names for places."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path


def closest(word: str, known: Iterable[str], prefix: str = "", otherwise: str = "; see --help") -> str:
    """The end of a message about an unknown word: the closest known one, or `otherwise`."""
    close = get_close_matches(word.partition("=")[0].lower(), list(known), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{close[0]}?" if close else otherwise


def check_one_of(what: str, value: object, choices: Collection[str], otherwise: str | None = None) -> None:
    """Raise a ValueError for a value that is none of the choices: with the closest of them, and all of them.

    Args:
        otherwise: what to say instead of all choices, where they are too many to list.
    """
    if value in choices:
        return
    known = f"there are {', '.join(choices)}" if otherwise is None else otherwise
    hint = closest(str(value), choices, otherwise="")
    raise ValueError(f"unknown {what} {value!r}{hint} {known[0].upper()}{known[1:]}" if hint else
                     f"unknown {what} {value!r}; {known}")  # fmt: skip


@contextmanager
def prefixed(where: str) -> Iterator[None]:
    """Say where a mistake is, before what a ValueError of the block says."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def short_names(paths: Sequence[str | Path]) -> list[str]:
    """Names for several places: the parts of their paths that are not the same for all."""
    parts = [Path(path).parts for path in paths]
    same = {place for place, found in enumerate(zip(*parts, strict=False)) if len(set(found)) == 1}
    own = [[part for place, part in enumerate(found) if place not in same] for found in parts]
    return [Path(*names).as_posix() if names else Path(path).name for names, path in zip(own, paths, strict=True)]


def shortened(text: object, longest: int = 100) -> str:
    """A text, or its end where it is too long for a message."""
    words = str(text)
    return words if len(words) <= longest else f"...{words[-longest:]}"


def command(words: str) -> str:
    """What a reader is to type, for example `command("diff apply RUN FOLDER")`."""
    return f"glue-sparse {words}"


def shown(value: object, longest: int = 60) -> str:
    """A value in a message, as Python writes it, on one line and cut where it is long."""
    text = repr(value) if isinstance(value, str) else " ".join(str(value).split())
    return text if len(text) <= longest else f"{text[:longest]}..."


def listed(names: Collection[str], longest: int = 80) -> str:
    """Names in a message, with commas: as many as fit, and how many more there are."""
    found: list[str] = []
    for name in names:
        word = shown(name) if not name.isprintable() or len(name) > longest // 2 else name
        if found and len(", ".join([*found, word])) > longest:
            return f"{', '.join(found)} and {len(names) - len(found)} more"
        found.append(word)
    return ", ".join(found)
