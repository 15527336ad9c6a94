"""Loading what others have made: only weights in safetensors format, and no code of theirs unless the user asks for it.

All of transformers' loaders are called here. Where they are not told, they ask on the terminal whether to run the code
that a repository or a folder brings.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from glue_sparse.writing.fields import check_regular

_READ = (".json", ".safetensors", ".txt", ".model")
"""Ends of the names of files that loaders read."""
_TRUSTS: ContextVar[bool] = ContextVar("trusts", default=False)


class BringsCode(ValueError):
    """A model, configuration or tokenizer that only code of its own can read."""


@contextmanager
def trusted(trust_remote_code: bool) -> Iterator[None]:
    """Within the block, code that comes with a model is run where the user has said so."""
    before = _TRUSTS.set(trust_remote_code)
    try:
        yield
    finally:
        _TRUSTS.reset(before)


def trusts() -> bool:
    """Whether the user has said that code of others may run."""
    return _TRUSTS.get()


def loaded(kind: Any, place: str, **options: Any) -> Any:
    """What `kind`, an Auto class for instance, reads from a folder or the hub: a configuration or a tokenizer.

    Raises:
        BringsCode: it comes with code that has to be run, and that is not trusted.
        OSError, ValueError: whatever the loader says otherwise, or a file of the folder is none.
    """
    if (folder := Path(place)).is_dir():  # what is no file, loaders take for missing, or wait for its end
        for path in folder.iterdir():
            if path.suffix in _READ:
                check_regular(path)
    with _refused(place):
        return kind.from_pretrained(place, trust_remote_code=_TRUSTS.get(), **options)


def loaded_model(kind: Any, place: str, **options: Any) -> tuple[Any, dict[str, Any]]:
    """The same for a model, and the loader's report of missing, mismatched and unexpected tensors; no pickles."""
    return loaded(kind, place, use_safetensors=True, output_loading_info=True, **options)


def made(kind: Any, config: Any, **options: Any) -> Any:
    """The new model of a configuration, with the head that `kind` adds.

    Raises:
        BringsCode: see `loaded`.
    """
    if not hasattr(kind, "from_config"):  # only Auto classes have it, and look for code
        return kind._from_config(config, **options)
    with _refused(str(config.name_or_path)):
        return kind.from_config(config, trust_remote_code=_TRUSTS.get(), **options)


@contextmanager
def _refused(place: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if _TRUSTS.get() or "trust_remote_code" not in str(error):
            raise
        raise BringsCode(f"{place} brings code of its own, which is not run unasked: read it, and give "
                         "`trust_remote_code` true if you trust it") from error  # fmt: skip
