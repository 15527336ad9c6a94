"""CPU seconds that a run of a grid takes before it trains: in a Python of its own or forked from a warm one, with data
that are prepared for the first time or again; and those of `glue-sparse --help`. For example

    python scripts/measure_cells.py -- --task mrpc --model minilm --data_dir path/to/glue
    python scripts/measure_cells.py -- --task masked_lm --model bert_tiny --data_dir path/to/text --vocab_size 256

Prints a table; medians and ranges of `--repeats`, taken in turns.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from glue_sparse.experiments.loading import loading
from glue_sparse.experiments.warm import NEEDED, Warm
from glue_sparse.tasks import registry as tasks
from glue_sparse.writing.tables import markdown

WAYS = (("cold", True), ("cold", False), ("warm", True), ("warm", False))
"""How a run starts, and whether it is the first on its data."""


def main(argv: Sequence[str]) -> None:
    """Measure and print."""
    flags = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    flags.add_argument("--repeats", type=int, default=5, help="runs of each kind, 5 by default")
    flags.add_argument("words", nargs="+", help="behind `--`: flags of `glue-sparse train`")
    told = flags.parse_args(argv)
    words: list[str] = told.words
    task = words[words.index("--task") + 1]
    load = str(tasks.find(task).load).partition(":")[0]
    found: dict[str, list[list[float]]] = {f"{how}, {'first' if new else 'again'}": [] for how, new in WAYS}
    helps: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
                       "XDG_CACHE_HOME": folder}  # fmt: skip
        warm = Warm([*NEEDED, load], environment)
        for turn in range(told.repeats):
            for (how, _), times in zip(WAYS, found.values(), strict=True):
                place = f"{folder}/{turn}{how}"  # of the first run, and then of the next
                times.append(_run(warm if how == "warm" else None, words, {**environment, "XDG_CACHE_HOME": place}))
            helps.append(_help(environment))
        warm.close()
    lines = [[name, *(_told(column) for column in zip(*times, strict=True))] for name, times in found.items()]
    print(f"CPU seconds, median (least to most) of {told.repeats}: {' '.join(words)}\n")
    print(markdown(["run", "loading modules", "data and model", "both"], lines))
    print(f"\nglue-sparse --help: {_told(helps)}")


def _told(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


def _run(warm: Warm | None, words: Sequence[str], environment: dict[str, str]) -> list[float]:
    """CPU seconds of loading modules, of loading data and model, and of both, in one process."""
    command = [sys.executable, "-m", Path(__file__).stem, "--only", *words]
    with tempfile.TemporaryFile() as log:
        process = warm and warm.start(command, log, environment)
        process = process or subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        status = process.wait()
        log.seek(0)
        lines = log.read().decode(errors="replace").splitlines()
    if status:
        raise SystemExit("\n".join(lines))
    modules, both = map(float, next(line for line in lines if line.startswith("CPU ")).split()[1:])
    return [modules, both - modules, both]


def _help(environment: dict[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "glue_sparse", "--help"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def only(words: Sequence[str]) -> None:
    """What a run does up to its method: load modules, then data and model."""
    with loading():
        for module in NEEDED:
            import_module(module)
    modules = time.process_time()
    arguments = import_module("glue_sparse.experiments.told").parse(words, "", {})
    tasks.load_task(arguments.task, arguments.model, 0)
    print(f"CPU {modules} {time.process_time()}")


if __name__ == "__main__":
    only(sys.argv[2:]) if sys.argv[1:2] == ["--only"] else main(sys.argv[1:])
