"""Kernels by Triton's interpreter, in a process where it was asked for before triton was loaded; and where none run."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from glue_sparse.kernels import backend

HERE = Path(__file__).parent
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="there is a Triton for Linux alone")


@needs_triton
@pytest.mark.parametrize("file", ["under_interpreter.py", "gates_under_interpreter.py"])
def test_kernels_under_the_interpreter(file: str, tmp_path: Path):
    command = [sys.executable, "-m", "pytest", "--noconftest", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [*command, str(HERE / file)], capture_output=True, text=True, cwd=HERE.parents[1],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "TRITON_CACHE_DIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]


@pytest.fixture
def _asked_anew() -> Iterator[None]:
    backend._is_working.cache_clear()
    yield
    backend._is_working.cache_clear()


@pytest.mark.usefixtures("_asked_anew")
def test_no_kernel_runs_without_a_gpu(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not backend.available(torch.device("cpu"), torch.float32)
    assert not backend.available(torch.device("cuda"), torch.float32)
    assert not caplog.records


@pytest.mark.usefixtures("_asked_anew")
@pytest.mark.parametrize("spec, reason", [(None, "it is not installed"), ("there", "no C compiler")])
def test_a_gpu_without_a_working_triton_is_told_of_once(
    spec: Any, reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def broken(device: torch.device) -> str:
        return reason

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(backend, "find_spec", lambda name: spec)
    monkeypatch.setattr(backend, "_failure", broken)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with caplog.at_level(logging.WARNING):
        assert [backend.available(torch.device("cuda", 0), dtype) for dtype in backend.TYPES] == [False] * 3
    (record,) = caplog.records
    assert f"({reason}), so sparse layers on a GPU compute with torch's own products" in record.getMessage()


@needs_triton
def test_a_first_kernel_that_fails_gives_its_reason():
    reason = backend._failure(torch.device("cpu"))  # which Triton's compiler has no code for
    assert reason and "\n" not in reason


def test_float32_is_multiplied_as_torch_does():
    before = torch.backends.cuda.matmul.fp32_precision
    try:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        assert backend.precision() == "tf32"
        torch.backends.cuda.matmul.fp32_precision = "ieee"
        assert backend.precision() == "ieee"
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def test_blocks_and_parts():
    assert [backend.block(n) for n in (0, 1, 16, 17, 64, 65, 500)] == [16, 16, 16, 32, 64, 128, 128]
    assert [backend.block(n, least=32, most=64) for n in (8, 48, 500)] == [32, 64, 64]
    assert [backend.parts(programs, 4096, 512) for programs in (1, 128, 4096)] == [8, 4, 1]
    assert backend.parts(0, 0, 512) == 1
