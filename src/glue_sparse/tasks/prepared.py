"""Prepared data, tokens above all, kept on disk: runs on the same data, as the cells of a grid, make them once.

They lie in `$XDG_CACHE_HOME/glue_sparse/prepared` (`~/.cache` by default), a file of Arrow's stream format for each key
behind a SHA-256 of it. What is damaged is made anew, what is not used for longest goes first, and where nothing can be
written nothing is kept; nor after `datasets.disable_caching()`.
"""

import hashlib
import os
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import datasets
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from glue_sparse.writing.files import cache_folder, replacing

FORMAT = 1
"""Of the files; a higher number forgets all that there are."""
MOST_BYTES = 2 << 30
"""Of all files together."""
FEWEST_BYTES = 1 << 16
"""Of text: less is prepared about as fast as its key is computed and a file is read."""
_START = 64
"""Bytes before the stream, so that what follows lies as Arrow wants it."""
_LIBRARIES = ("glue_sparse", "transformers", "tokenizers", "datasets")

Part = bytes | str | int
"""What a key is made of."""


def folder() -> Path:
    """Where the files are; it need not be there."""
    return cache_folder() / "prepared"


def key_of(parts: Iterable[Part]) -> str:
    """SHA-256 of the parts one by one, and of the versions of what prepares; 64 hexadecimal digits."""
    found = hashlib.sha256()
    for part in (FORMAT, *map(version, _LIBRARIES), *parts):
        data = part if isinstance(part, bytes) else str(part).encode(errors="surrogatepass")
        found.update(struct.pack("<q", len(data)))
        found.update(data)
    return found.hexdigest()


def identity(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """All that decides which tokens a tokenizer gives; none where that cannot be known, as of one with own code."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not type(tokenizer).__module__.startswith("transformers."):
        return None
    truncation, padding = backend.truncation, backend.padding  # of the last call
    backend.no_truncation()
    backend.no_padding()
    try:
        state = backend.to_str()
    finally:
        if truncation:
            backend.enable_truncation(**truncation)
        if padding:
            backend.enable_padding(**padding)
    sides = tokenizer.truncation_side, tokenizer.padding_side, tokenizer.model_input_names
    return f"{type(tokenizer).__qualname__} {sides} {getattr(tokenizer, 'split_special_tokens', False)} {state}"


def digest(table: pa.Table) -> str:
    """SHA-256 of a table: its columns, their types and every value, however they lie in memory."""
    return hashlib.sha256(_stream(table)).hexdigest()


@lru_cache
def source(file: str) -> bytes:
    """The text of a module, which decides what it makes; nothing where it is not there to be read."""
    try:
        return Path(file).read_bytes()
    except OSError:
        return b""


def kept(key: str, make: Callable[[], pa.Table], num_bytes: int) -> pa.Table:
    """What `make` gives: from disk if it is there, else made and kept.

    Args:
        key: what `key_of` gives for all that decides what is made.
        num_bytes: of the text that it is made of; little is not kept.
    """
    if num_bytes < FEWEST_BYTES or not datasets.is_caching_enabled():
        return make()
    try:
        path = folder() / f"{key}.arrow"
    except RuntimeError:  # a user without a home, as in some containers
        return make()
    if (found := _read(path)) is None:
        _write(path, found := make())
    return found


def _read(path: Path) -> pa.Table | None:
    """The table of a file; none where there is no such file, or one that is damaged."""
    with suppress(OSError, pa.ArrowInvalid):
        content = path.read_bytes()
        stream = memoryview(content)[_START:]
        if content[:32] == hashlib.sha256(stream).digest():
            os.utime(path)
            return pa.ipc.open_stream(pa.py_buffer(stream)).read_all()
    return None


def _write(path: Path, table: pa.Table) -> None:
    stream = _stream(table)
    if len(stream) > MOST_BYTES // 4:
        return
    with suppress(OSError):  # a full disk, or a home that cannot be written to
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.write(hashlib.sha256(stream).digest().ljust(_START, b"\0"))
            file.write(stream)
        _bound(path.parent)


def _stream(table: pa.Table) -> memoryview:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return memoryview(sink.getvalue())


def _bound(place: Path) -> None:
    """Delete the files that were not used for longest until the others are small enough together."""
    files = sorted(((one.stat(), one) for one in place.glob("*.arrow")), key=lambda found: -found[0].st_mtime_ns)
    total = 0
    for facts, path in files:
        total += facts.st_size
        if total > MOST_BYTES:
            path.unlink(missing_ok=True)


def table_of(arrays: dict[str, Any]) -> pa.Table:
    """NumPy arrays of one dimension and any lengths as a table of one row."""
    lists = {name: pa.LargeListArray.from_arrays([0, len(array)], pa.array(array)) for name, array in arrays.items()}
    return pa.table(lists)


def arrays_of(table: pa.Table) -> dict[str, Any]:
    """What `table_of` was given; not to be written to."""
    return {name: cast(Any, table[name].chunk(0)).values.to_numpy() for name in table.column_names}
