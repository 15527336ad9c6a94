"""What files of text are made of: regular files in UTF-8, without what only damage puts there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glue_sparse.writing.fields import check_regular


def check_file(path: Path) -> None:
    """Raise a ValueError where there is no file, and for a folder, a pipe or a device: data are read more than once."""
    try:
        check_regular(path)
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist") from error
    except IsADirectoryError as error:
        raise ValueError(f"{path} is a folder, and a file is needed") from error
    except ValueError as error:
        raise ValueError(f"{error}, and data are read more than once: write them into one") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


@contextmanager
def utf8(path: Path) -> Iterator[None]:
    """Say of a file that is read within the block that it is no UTF-8, and in which line it is not."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text{_where(path)}") from error


def fault_of(text: str) -> str | None:
    """What a text holds that none should, as the end of a sentence; None when all is well."""
    if "\0" in text:
        return "holds a NUL character, as damaged and binary files do: mend or remove it"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "holds half a character (a lone surrogate, as cut emoji leave it): mend or remove it"
    return None


def _where(path: Path) -> str:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return f": line {number} has other bytes"
    return ""
