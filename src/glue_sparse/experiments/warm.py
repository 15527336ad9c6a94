"""Python that has loaded torch and transformers once, and forks for each run: what `python -m` does, without the wait.

Loading them takes several seconds of work, a large part of a small run. A forked run is a process of its own with its
own arguments, environment, output, signals and exit status. Nothing has been computed before the fork: threads for
numbers and CUDA begin in the run, with the environment that a run started afresh has.
"""

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import IO, Protocol

from glue_sparse.experiments.cells import Cell
from glue_sparse.experiments.loading import loading
from glue_sparse.tasks import registry as tasks

NEEDED = (
    "glue_sparse.cli.train", "glue_sparse.cli.work.prune_diff", "glue_sparse.experiments.run",
    "glue_sparse.experiments.outcome", "glue_sparse.methods.builders", "glue_sparse.models.loading",
)  # fmt: skip
"""What every run loads; beside it, the modules of the tasks."""
_LONGEST = 2**17
"""Bytes of what is asked for; a longer command is run by a Python of its own."""


class Process(Protocol):
    """What is used of `subprocess.Popen`."""

    def wait(self) -> int: ...
    def terminate(self) -> None: ...


class Forked:
    """A run that was forked; `replies` holds its exit status when it has ended."""

    def __init__(self, pid: int, replies: IO[str]) -> None:
        self.pid, self._replies = pid, replies

    def wait(self) -> int:
        """Its exit status, negative for a signal; 1 where that is lost."""
        with self._replies:
            return int(self._replies.readline() or 1)

    def terminate(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)


class Warm:
    """The process that forks; its runs live on without it."""

    def __init__(self, modules: Iterable[str], environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", __name__, str(theirs.fileno()), *modules]
            self._process = subprocess.Popen(
                command, env=environment, pass_fds=[theirs.fileno()], stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip

    def start(self, command: Sequence[str], log: IO[bytes], environment: Mapping[str, str]) -> Forked | None:
        """Fork for a command [python, -m, module, ...]; None where that cannot be, and a fresh Python is to run it."""
        changes = {name: value for name, value in environment.items() if self._environment.get(name) != value}
        asked = json.dumps([*command, changes]).encode()
        if len(asked) > _LONGEST:
            return None
        reader, writer = os.pipe()
        replies = os.fdopen(reader)
        try:
            socket.send_fds(self._socket, [asked], [log.fileno(), writer])
        except OSError:  # it has ended
            pass
        finally:
            os.close(writer)
        pid = replies.readline()
        if pid:
            return Forked(int(pid), replies)
        replies.close()
        return None

    def close(self) -> None:
        """No more runs; whoever waits for one to start hears of it."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


def warm(cells: Collection[Cell], environment: Mapping[str, str]) -> Warm | None:
    """What forks for these runs, in the environment of all; None where the system has no such forks, or for one run."""
    if sys.platform != "linux" or len(cells) < 2:
        return None
    loads = {tasks.find(cell.arguments.task.task).load for cell in cells}
    return Warm([*NEEDED, *sorted(load.partition(":")[0] for load in loads if isinstance(load, str))], environment)


def main() -> None:
    """The process that forks: asked through a socket, until nobody is left to ask; each run leaves by its own end."""
    control = socket.socket(fileno=int(sys.argv[1]))
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # for runs: who asks for them decides what becomes of this
    usual = {kind: signal.signal(kind, signal.SIG_IGN) for kind in signals}
    with loading():
        for module in sys.argv[2:]:
            import_module(module)
    is_threaded = threading.active_count() > 1
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    while True:
        asked, (*files,), _, _ = socket.recv_fds(control, _LONGEST, 2)
        if not asked:
            return
        if os.fork() == 0:
            break
        for file in files:
            os.close(file)
    control.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log, replies = files
    if pid := os.fork():
        _keep(pid, replies)
    for kind, handler in usual.items():
        signal.signal(kind, handler)
    for number in (1, 2):
        os.dup2(log, number)
    os.close(log)
    os.close(replies)
    *command, changes = json.loads(asked)
    os.environ.update(changes)
    if is_threaded or _has_used_cuda():  # which no fork survives
        os.execv(command[0], command)
    _become(command)


def _keep(pid: int, replies: int) -> None:
    """Tell of a run that it began and how it ended; a process of its own, so that no run needs the one that forks."""
    with suppress(OSError):  # nobody asks any more
        os.write(replies, f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    with suppress(OSError):
        os.write(replies, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become(command: list[str]) -> None:
    """Do in this process what the command does in one of its own."""
    _, _, module, *words = command
    sys.argv = [module, *words]
    sys.modules.pop(module, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _has_used_cuda() -> bool:
    """Whether loading modules has asked for it; torch notes that when a process forks."""
    torch = sys.modules.get("torch")
    return bool(torch and torch.cuda._is_in_bad_fork())


if __name__ == "__main__":
    main()
