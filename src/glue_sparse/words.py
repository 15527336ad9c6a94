"""Words in messages: the closest known word, and short names for places."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path


def closest(word: str, flags: Iterable[str], prefix: str = "", otherwise: str = "; see --help") -> str:
    """The end of a message about an unknown word: the closest known one, or `otherwise`."""
    close = get_close_matches(word.partition("=")[0], list(flags), n=1)
    return f"; did you mean {prefix}{close[0]}?" if close else otherwise


def short_names(paths: Sequence[str | Path]) -> list[str]:
    """Names for several places: the parts of their paths that are not the same for all."""
    parts = [Path(path).parts for path in paths]
    same = {place for place, found in enumerate(zip(*parts, strict=False)) if len(set(found)) == 1}
    names = ["/".join(part for place, part in enumerate(own) if place not in same) for own in parts]
    return [name or Path(path).name for name, path in zip(names, paths, strict=True)]
