"""The tests that need a GPU, run by pytest in a process of their own."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from glue_sparse.benchmarks.device.part import Part, Table, Told
from glue_sparse.benchmarks.training import DEVICE

ROOT = Path(__file__).parents[4]
"""Of a checkout; of an installed package this is no place with tests."""
MARKER = "cuda"
_SECONDS = 420
_LAST = 15
"""Lines of pytest's report that are kept."""


def why_not() -> str:
    """Why the tests cannot be run here; empty where they can."""
    if DEVICE.type != "cuda":
        return f"no GPU is here, so the tests marked `{MARKER}` were not run"
    if not (ROOT / "tests").is_dir():
        return "the tests are not here, since the package is installed: run this in a checkout"
    return "" if find_spec("pytest") else "pytest is not here: install the extra dev"


def run(told: Told) -> Part:
    """Every test with the marker `cuda`; with `quick` the same."""
    if missing := why_not():
        return Part([], {}, missing=missing)
    return tested(["tests", "-m", MARKER])


def tested(words: list[str]) -> Part:
    """What pytest says of these words, in the checkout's root."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", *words]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Part([], {}, wrong=f"the tests took longer than {_SECONDS} seconds: run `pytest -m {MARKER}` alone")
    shown = [line for line in done.stdout.splitlines() if line.strip()][-_LAST:]
    summary = shown[-1] if shown else "pytest printed nothing"
    facts = {"command": " ".join(["pytest", *words]), "status": done.returncode, "shown": shown}
    wrong = f"pytest ended with status {done.returncode}: {summary}" if done.returncode else ""
    return Part([Table(facts["command"], ("said",), [(summary,)])], facts, wrong)
