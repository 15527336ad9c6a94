"""Runs forked from a Python that is warm: each is what a Python of its own would be, and needs nobody to live on."""

import gc
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from glue_sparse.experiments import grids, runner
from glue_sparse.experiments.cells import Cell
from glue_sparse.experiments.loading import loading
from glue_sparse.experiments.warm import Forked, Warm
from glue_sparse.records.results import Result

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not fork so")

SAYS = """
import os, signal, sys
print(__name__, sys.argv[0] == __file__, sys.argv[1:], os.environ.get("MINE"), os.environ["ALL"], flush=True)
now = signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.getsignal(signal.SIGTERM)
print(repr(now), file=sys.stderr)
if sys.argv[1] == "sleep":
    import time
    time.sleep(60)
if sys.argv[1] == "raise":
    raise RuntimeError("so it is")
sys.exit(int(sys.argv[1]))
"""
LEAVES = """
import gc, json, logging, os, random, signal, sys, threading
files, handlers = os.listdir("/proc/self/fd"), logging.getLogger().handlers
print(os.getcwd(), os.environ.get("LEFT"), hasattr(json, "left"), len(handlers), len(files), sys.flags.utf8_mode,
      sys.getrecursionlimit(), signal.getsignal(signal.SIGUSR1), threading.active_count(), os.umask(0o22),
      len(sys.path), gc.isenabled(), gc.get_threshold(), flush=True)
print(random.random(), flush=True)
os.environ["LEFT"], json.left = "1", True
logging.getLogger().addHandler(logging.NullHandler())
kept = os.open(__file__, os.O_RDONLY)
os.chdir("/")
os.umask(0o77)
random.seed(0)
sys.setrecursionlimit(5000)
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
threading.Thread(target=threading.Event().wait, daemon=True).start()
{"hard": lambda: os._exit(9), "killed": lambda: os.kill(os.getpid(), signal.SIGKILL), "segv": lambda: os.abort(),
 "well": lambda: None}[sys.argv[1]]()
"""
BUSY = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """In which `says`, `leaves`, `busy` and `calm` are modules."""
    (tmp_path / "says.py").write_text(SAYS)
    (tmp_path / "leaves.py").write_text(LEAVES)
    (tmp_path / "busy.py").write_text(BUSY)
    (tmp_path / "calm.py").touch()
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "ALL": "a"}


@pytest.fixture
def warm(environment: dict[str, str]) -> Iterator[Warm]:
    made = Warm(["json"], environment)
    yield made
    made.close()


def start(warm: Warm, log: Path, environment: dict[str, str], *words: str, module: str = "says") -> Forked:
    with log.open("ab") as file:
        process = warm.start([sys.executable, "-m", module, *words], file, environment)
    assert process
    return process


def until(happened: Any) -> None:
    end = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


@pytest.mark.parametrize("words", [("0", "a b"), ("3",), ("raise",)])
def test_a_forked_run_is_what_a_fresh_one_is(
    warm: Warm, environment: dict[str, str], tmp_path: Path, words: tuple[str, ...]
):
    environment = {**environment, "MINE": "1"}
    status = start(warm, tmp_path / "forked", environment, *words).wait()
    with (tmp_path / "fresh").open("ab") as log:
        command = [sys.executable, "-m", "says", *words]
        fresh = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False)
    one, other = ((tmp_path / name).read_text().splitlines() for name in ("forked", "fresh"))
    assert status == fresh.returncode and one[:2] == other[:2] and one[-1] == other[-1]
    assert "__main__ True" in one[0]


def test_what_is_loaded_is_not_looked_through_and_the_rest_is_collected_as_before():
    before = gc.get_freeze_count()
    with loading():
        assert not gc.isenabled()
    assert gc.isenabled() and gc.get_freeze_count() > before
    with pytest.raises(ImportError), loading():
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    try:
        with loading():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_was_loaded_is_freed_at_the_end_so_that_no_library_says_that_it_leaked():
    script = """
import atexit, gc
from glue_sparse.experiments.loading import loading
atexit.register(lambda: print(gc.get_freeze_count()))  # called last
with loading():
    pass
print(gc.get_freeze_count() > 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "0"]


@pytest.mark.parametrize(("end", "status"), [("well", 0), ("hard", 9), ("killed", -9), ("segv", -6)])
def test_a_run_that_ends_hard_ends_alone_and_leaves_nothing_to_the_next(
    warm: Warm, environment: dict[str, str], tmp_path: Path, end: str, status: int
):
    first, second = (start(warm, tmp_path / "log", environment, end, module="leaves").wait() for _ in range(2))
    assert first == second == status
    one, drawn, other, again = (tmp_path / "log").read_text().splitlines()
    assert one == other and "None False 0" in one and drawn != again


def test_runs_side_by_side_are_told_apart_and_stopped_alone(warm: Warm, environment: dict[str, str], tmp_path: Path):
    one, other = (start(warm, tmp_path / name, environment, "sleep") for name in "ab")
    until(lambda: (tmp_path / "a").exists() and "Handlers" in (tmp_path / "a").read_text())
    one.terminate()
    assert one.wait() == -signal.SIGTERM
    assert start(warm, tmp_path / "c", {**environment, "MINE": "2"}, "5").wait() == 5
    os.kill(other.pid, 0)
    other.terminate()
    other.wait()
    one.terminate()  # it has ended, and nobody else is meant


def test_runs_live_on_when_the_process_that_forks_is_gone(warm: Warm, environment: dict[str, str], tmp_path: Path):
    run = start(warm, tmp_path / "a", environment, "sleep")
    until(lambda: "Handlers" in (tmp_path / "a").read_text())
    warm.close()
    with (tmp_path / "b").open("ab") as log:
        assert warm.start([sys.executable, "-m", "says", "0"], log, environment) is None
    os.kill(run.pid, signal.SIGINT)
    assert run.wait() == -signal.SIGINT


def test_a_python_that_cannot_load_forks_nothing(environment: dict[str, str], tmp_path: Path):
    warm = Warm(["no_such_module"], environment)
    with (tmp_path / "a").open("ab") as log:
        assert warm.start([sys.executable, "-m", "says", "0"], log, environment) is None
        assert warm.start([sys.executable, "-m", "says", "0" * 2**18], log, environment) is None
    warm.close()


@pytest.mark.parametrize(("loaded", "is_there"), [("calm", True), ("busy", False)])
def test_where_threads_run_before_the_fork_a_run_starts_afresh(
    environment: dict[str, str], tmp_path: Path, loaded: str, is_there: bool
):
    (tmp_path / "looks.py").write_text("import sys\nprint(bool({'calm', 'busy'} & sys.modules.keys()))\n")
    warm = Warm([loaded], environment)
    with (tmp_path / "log").open("ab") as log:
        process = warm.start([sys.executable, "-m", "looks"], log, environment)
    assert process and process.wait() == 0 and (tmp_path / "log").read_text() == f"{is_there}\n"
    warm.close()


def numbers(result: Result) -> tuple[Any, ...]:
    """All but clocks."""
    times = ("runtime", "per_second")
    history = [{key: value for key, value in log.items() if not key.endswith(times)} for log in result.history]
    return history, result.metrics, result.cost, result.flops, result.command.split(" --output_dir ")[0]


def told(cell: Cell) -> list[str]:
    """Lines of its log without numbers, paths and bars of progress."""
    lines = re.split(r"[\r\n]+", re.sub(r"/\S+|[-\d.]", "", cell.log.read_text()))
    return [line for line in lines if line.strip() and "%|" not in line]


@pytest.mark.slow
def test_forked_runs_of_a_grid_are_those_of_fresh_pythons_to_the_bit(
    tiny_bert: str, rte: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config: dict[str, Any] = {
        "base": {"model": tiny_bert, "data_dir": str(rte), "num_train_epochs": 2, "disable_tqdm": True},
        "rows": {"fish": {"method": "fish", "density": 0.1}, "rigl": {"method": "rigl", "density": 0.3}},
        "columns": {"rte": {"task": "rte"}}, "seeds": [0],
    }  # fmt: skip
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    forked, fresh = (grids.read(tmp_path / "tiny.yaml", output_dir=tmp_path / name) for name in ("forked", "fresh"))
    assert runner.run_here(forked, jobs=2) == []
    monkeypatch.setattr(runner, "warm", lambda *_: None)
    assert runner.run_here(fresh, jobs=2) == []
    for one, other in zip(forked.cells, fresh.cells, strict=True):
        (found, again), name = (one.result(), other.result()), "sparse_diff.safetensors"
        assert found and again and numbers(found) == numbers(again)
        assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes()
        assert told(one) == told(other)
