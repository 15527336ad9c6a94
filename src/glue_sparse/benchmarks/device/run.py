"""Does a device check chunk by chunk, each with a file of its own, and writes the page and all numbers as JSON."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from glue_sparse.benchmarks.device.chunks import chunk, chunks
from glue_sparse.benchmarks.device.machine import machine
from glue_sparse.benchmarks.device.page import name_of, page
from glue_sparse.benchmarks.device.part import Told
from glue_sparse.benchmarks.device.worker import Source, Worker
from glue_sparse.writing.fields import json_object
from glue_sparse.writing.files import json_text, without_infinite, write_text, write_texts
from glue_sparse.writing.words import check_one_of, prefixed

FOLDER = "device_check"
LIMIT = 470.0
"""Seconds after which a chunk is given up, so that it stays below 8 minutes."""
BAD = ("failed", "wrong")


def run(out: str | None, quick: bool, only: str | None, steps: int) -> None:
    """Do all chunks that are not done, or one anew.

    Raises:
        ValueError: an unknown chunk, a folder with records of another kind, or, at the end, chunks that failed.
    """
    do([*chunks(quick)], Source(chunk, machine), Path(out or FOLDER), Told(quick, steps), only)


def do(names: Iterable[str], source: Source, folder: Path, told: Told, only: str | None, limit: float = LIMIT) -> None:
    """As `run`, of any chunks.

    Args:
        source: of the chunks, by these names.
        limit: seconds after which a chunk is given up.
    """
    names = [*names]
    if only is not None:
        check_one_of("chunk", only, names)
    records = {name: one for name in names if (one := _read(folder / f"{name}.json", told)) is not None}
    print(_listed(names, records), flush=True)
    worker = Worker(source, told, limit)
    try:
        for name in names if only is None else [only]:
            if name in records and only is None:
                continue
            records[name] = one = worker.do(name)
            write_text(folder / f"{name}.json", _json(one, name))
            said = f": {one['sentence']}" if one["sentence"] else ""
            print(f"{name}: {one['status']} in {one['seconds']:.1f} s{said}", flush=True)
    finally:
        worker.close()
    records = {name: records[name] for name in names if name in records}
    print(f"see {_summed(records, folder, told)}")
    bad = [name for name, one in records.items() if one["status"] in BAD]
    if bad:
        raise ValueError(f"{len(bad)} of {len(records)} chunks did not end well ({', '.join(bad)}): see {folder}, and "
                         "do one anew with `chunk`")  # fmt: skip


def _listed(names: list[str], records: Mapping[str, Any]) -> str:
    lines = [f"  {name}" + (f": {records[name]['status']} before" if name in records else "") for name in names]
    return "\n".join(["chunks:", *lines])


def _read(path: Path, told: Told) -> dict[str, Any] | None:
    """The record of a chunk that was done before; ValueError for one of other settings."""
    if not path.exists():
        return None
    with prefixed(f"{path} is no record of a chunk: delete it"):
        found = json_object(path.read_text(encoding="utf-8"), "it")
    was = Told(found.get("quick", False), found.get("steps", 0))
    if was != told:
        raise ValueError(f"{path} was made with `quick` {was.quick} and `steps` {was.steps}: give those, or choose "
                         "another `out`")  # fmt: skip
    return found


def _json(value: Any, what: str) -> str:
    return json_text(json.loads(json.dumps(without_infinite(value), default=str)), what, indent=1) + "\n"


def _summed(records: Mapping[str, dict[str, Any]], folder: Path, told: Told) -> Path:
    """Write all numbers and the page; the page's path."""
    here = next((one["machine"] for one in records.values() if one["machine"]), {})
    quick = " --quick" if told.quick else ""
    command = f"glue-sparse benchmark --device_check{quick} --steps {told.steps}"
    name = f"device_{name_of(here)}"
    facts = {"command": command, "machine": here, "chunks": records}
    text = page(records, here, command)
    write_texts({folder / f"{name}.json": _json(facts, name), folder / f"{name}.md": text})
    return folder / f"{name}.md"
