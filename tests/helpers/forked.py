"""Processes of glue_sparse that start at once: forked from a server that has torch and transformers loaded.

A fresh interpreter spends some ten seconds of work on those imports, and the tests of grids, kills and several ranks
start dozens. What is forked is what `python -m` would run, as `__main__` and with its own arguments, signals,
environment, output and exit status. No thread of torch has run in the server, which a fork would not survive.
"""

import gc
import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import IO, Any

import torch

from glue_sparse.experiments import runner

PRELOADED = (
    "forked", "glue_sparse.cli.prune_diff", "glue_sparse.cli.table", "glue_sparse.cli.train",
    "glue_sparse.experiments.run", "glue_sparse.models.loading", "glue_sparse.tasks.glue", "networks",
    "transformers.models.bert.modeling_bert",
)  # fmt: skip
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(list(PRELOADED))


class Forked:
    """What the code and the tests use of `subprocess.Popen`, for [python, -m, module, ...] or [python, file, ...]."""

    def __init__(
        self,
        command: list[str],
        stdout: IO[bytes] | None = None,
        stderr: Any = None,
        env: dict[str, str] | None = None,
        start_new_session: bool = False,
    ) -> None:
        assert command[0] == sys.executable
        self.folder = Path(mkdtemp()) if stdout is None else None
        if self.folder:
            self.outputs = (self.folder / "stdout", self.folder / "stderr")
        else:
            assert stdout and stderr == subprocess.STDOUT
            self.outputs = (Path(stdout.name),) * 2
        settings = (command[1:], self.outputs, dict(os.environ) if env is None else env, start_new_session)
        self.process: ForkServerProcess = _CONTEXT.Process(target=_main, args=settings)
        self.process.start()
        self.pid = int(self.process.pid or 0)

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("forked", timeout or 0)
        return self.process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        out, err = (path.read_text() if path.exists() else "" for path in self.outputs)
        if self.folder:
            shutil.rmtree(self.folder)
        return out, err

    def terminate(self) -> None:
        self.process.terminate()

    def kill(self) -> None:
        self.process.kill()


SUBPROCESS = SimpleNamespace(Popen=Forked, STDOUT=subprocess.STDOUT)
"""To take the place of `subprocess` in `experiments.runner`."""


def _main(words: list[str], outputs: tuple[Path, Path], env: dict[str, str], new_session: bool) -> None:
    # The address is inherited, but Python would start a second server from here.
    setattr(multiprocessing.forkserver._forkserver, "ensure_running", lambda: None)  # noqa: B010
    gc.freeze()
    if new_session:
        os.setsid()
    for number, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(env)
    torch.set_num_threads(int(env.get("OMP_NUM_THREADS", "1")))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    setattr(runner, "subprocess", SUBPROCESS)  # noqa: B010  # a grid's runs are forked as well
    setattr(runner, "warm", lambda *_: None)  # noqa: B010  # from here, where all is loaded already
    if words[0] == "-m":
        sys.argv = words[1:]
        del sys.modules[words[1]]  # preloaded; run_module would warn
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(words)
        runpy.run_path(words[0], run_name="__main__")


def start_ranks(commands: Sequence[Sequence[str]], log: IO[bytes] | None = None) -> list[Forked]:
    """One process per command, [file, ...] or [-m, module, ...], that find each other as those of torchrun do."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    count = len(commands)
    where = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    where["LOCAL_WORLD_SIZE"] = str(count)
    processes = []
    for rank, words in enumerate(commands):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), **where} if count > 1 else {}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **own}
        processes.append(Forked([sys.executable, *words], log, log and subprocess.STDOUT, environment))
    return processes


class Launched:
    """The same for [python, -m, torch.distributed.run, ...] too, whose ranks are forked and hear of its signals."""

    def __init__(self, command: list[str], stdout: IO[bytes], stderr: int, env: dict[str, str], **options: Any) -> None:
        if "torch.distributed.run" not in command:
            self.ranks = [Forked(command, stdout, stderr, env, **options)]
            return
        place = command.index("--nproc_per_node") + 1
        self.ranks = start_ranks([command[place + 1 :]] * int(command[place]), stdout)

    def wait(self) -> int:
        return max(abs(rank.wait()) for rank in self.ranks)

    def terminate(self) -> None:
        for rank in self.ranks:
            rank.terminate()


def ended(processes: Sequence[Forked], seconds: float) -> list[tuple[int | None, str]]:
    """(exit status, stderr) of each; those that are not done in time are killed, which is a TimeoutExpired."""
    end, found = time.monotonic() + seconds, []
    try:
        for process in processes:
            _, error = process.communicate(max(1.0, end - time.monotonic()))
            found.append((process.returncode, error))
    finally:
        for process in processes:
            process.kill()
    return found


def run_ranks(script: Path, *words: str, count: int = 1, seconds: float = 240) -> None:
    """Run a script in `count` processes that find each other as those of torchrun do; all must end well."""
    for status, error in ended(start_ranks([[str(script), *words]] * count), seconds):
        assert status == 0, error[-3000:]
