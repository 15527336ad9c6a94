"""A process that does chunks one after the other, so that one that crashes or hangs takes no other with it."""

import multiprocessing as mp
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from glue_sparse.benchmarks.device.part import Part, Told


class Source(NamedTuple):
    """Where a process finds what it does; both are functions of modules, which a new process can import.

    Attributes:
        find: name of a chunk and `quick` -> the chunk.
        about: what is here, for the records.
    """

    find: Callable[[str, bool], Callable[[Told], Part]]
    about: Callable[[], dict[str, Any]]


def outcome(source: Source, name: str, told: Told) -> dict[str, Any]:
    """The record of a chunk that is done here: its status, a sentence, seconds, tables and facts."""
    started = time.perf_counter()
    try:
        part = source.find(name, told.quick)(told)
    except Exception as error:  # whatever it is, it is recorded, and the other chunks go on
        said = (str(error).splitlines() or ["no word about it"])[0]
        return record(name, told, "failed", f"{type(error).__name__}: {said}", time.perf_counter() - started)
    status = "wrong" if part.wrong else "not here" if part.missing else "done"
    made = record(name, told, status, part.wrong or part.missing, time.perf_counter() - started)
    tables = [{"title": one.title, "header": [*one.header], "lines": [[*line] for line in one.lines]}
              for one in part.tables]  # fmt: skip
    return {**made, "machine": source.about(), "tables": tables, "facts": part.facts}


def record(name: str, told: Told, status: str, sentence: str, seconds: float) -> dict[str, Any]:
    """What stands in a chunk's file whatever it found."""
    return {"chunk": name, "status": status, "sentence": sentence, "seconds": seconds, "date": str(date.today()),
            **told._asdict(), "machine": {}, "tables": [], "facts": {}}  # fmt: skip


def _serve(source: Source, told: Told, pipe: Connection) -> None:
    pipe.send("ready")
    with suppress(EOFError):  # the other end is closed when all is done
        while True:
            pipe.send(outcome(source, pipe.recv(), told))


_PATIENCE = 2.0
"""Seconds in which a process that waits for the next chunk ends, since there is nobody to send one."""


class Worker:
    """Does chunks in a process of its own, a new one after each that did not end well.

    Args:
        source: of the chunks.
        told: the same for all chunks.
        limit: seconds after which a chunk is given up.
    """

    def __init__(self, source: Source, told: Told, limit: float) -> None:
        self.source, self.told, self.limit = source, told, limit
        self._process: Any = None
        self._pipe: Any = None

    def do(self, name: str) -> dict[str, Any]:
        """The chunk's record, whatever happens to the process."""
        started = time.perf_counter()
        try:
            if self._process is None:
                self._start()
            self._pipe.send(name)
            has_answer = self._pipe.poll(self.limit)
        except (EOFError, OSError):
            has_answer = True  # that there will be none, as below
        if not has_answer:
            self.close()
            return record(name, self.told, "failed", f"it took longer than {self.limit:g} seconds and was stopped",
                          self.limit)  # fmt: skip
        try:
            found = self._pipe.recv()
        except EOFError:
            why = f"its process ended with status {self.close()}"
            return record(name, self.told, "failed", why, time.perf_counter() - started)
        if found["status"] == "failed":  # a GPU may answer nothing more in a process after an error
            self.close()
        return found

    def close(self) -> int | None:
        """End the process, if there is one, and give its status."""
        process, self._process = self._process, None
        if process is None:
            return None
        self._pipe.close()
        process.join(_PATIENCE)  # one that has crashed has a status of its own
        process.kill()
        process.join()
        return process.exitcode

    def _start(self) -> None:
        context = mp.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(self.source, self.told, theirs))
        self._process.start()
        theirs.close()
        self._pipe.recv()  # what it imports is no part of a chunk
