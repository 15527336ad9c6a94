"""The device check: chunks end in every way and are recorded, a second call goes on, the page, and tiny real chunks."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import fake_chunks
from glue_sparse.benchmarks.device import exactness, methods, page, suite
from glue_sparse.benchmarks.device.chunks import chunk, chunks
from glue_sparse.benchmarks.device.machine import machine
from glue_sparse.benchmarks.device.methods import Measured
from glue_sparse.benchmarks.device.part import Part, Told
from glue_sparse.benchmarks.device.run import do
from glue_sparse.benchmarks.device.worker import Source, outcome
from glue_sparse.reports import pages

TOLD = Told(quick=True, steps=1)


def records(folder: Path) -> dict[str, Any]:
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in fake_chunks.CHUNKS}


def test_chunks_end_in_every_way_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(ValueError, match=r"4 of 7 chunks did not end well \(wrong, raises, crashes, hangs\)"):
        do(fake_chunks.CHUNKS, fake_chunks.SOURCE, tmp_path, TOLD, None, limit=1.0)
    found = records(tmp_path)
    assert {name: (one["status"], one["sentence"]) for name, one in found.items()} == {
        "good": ("done", ""), "wrong": ("wrong", "1 of 2 layers is off"), "absent": ("not here", "no GPU is here"),
        "raises": ("failed", "RuntimeError: illegal memory access"),
        "crashes": ("failed", "its process ended with status 7"),
        "hangs": ("failed", "it took longer than 1 seconds and was stopped"), "last": ("done", ""),
    }  # fmt: skip
    assert found["good"]["facts"]["process"] != found["last"]["facts"]["process"]  # a new one after those that failed
    assert found["good"]["facts"]["endless"] is None and found["good"]["machine"]["versions"]["torch"]
    (text,) = [path.read_text() for path in tmp_path.glob("device_*.md")]
    (whole,) = [json.loads(path.read_text()) for path in tmp_path.glob("device_*.json")]
    assert whole["chunks"] == found and whole["command"].startswith("glue-sparse benchmark --device_check --quick")
    assert "| crashes" in text and "## good" in text and "sizes are tiny" in text
    assert capsys.readouterr().out.count("before") == 0


def test_a_second_call_does_what_is_missing_and_one_chunk_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    names = ["good", "last"]
    do(names[:1], fake_chunks.SOURCE, tmp_path, TOLD, None)
    first = (tmp_path / "good.json").read_text()
    do(names, fake_chunks.SOURCE, tmp_path, TOLD, None)
    assert (tmp_path / "good.json").read_text() == first and (tmp_path / "last.json").exists()
    assert "good: done before" in capsys.readouterr().out
    do(names, fake_chunks.SOURCE, tmp_path, TOLD, "good")
    assert (tmp_path / "good.json").read_text() != first  # another process
    with pytest.raises(ValueError, match="was made with `quick` True and `steps` 1: give those"):
        do(names, fake_chunks.SOURCE, tmp_path, TOLD._replace(quick=False), None)
    with pytest.raises(ValueError, match="unknown chunk .gut.; there are good, last"):
        do(names, fake_chunks.SOURCE, tmp_path, TOLD, "gut")
    (tmp_path / "last.json").write_text("{")
    with pytest.raises(ValueError, match="last.json is no record of a chunk"):
        do(names, fake_chunks.SOURCE, tmp_path, TOLD, None)


def test_layers_are_right_here_and_one_that_cuts_its_inputs_is_not(monkeypatch: pytest.MonkeyPatch):
    right = exactness.run(TOLD)
    assert not right.wrong and len(right.tables[0].lines) == 2 * (3 * 4 + 3)
    case = exactness.Case((64, 32), (5,), 16, torch.float32)
    exactness.right(case, "frozen")
    plain = torch.nn.functional.linear

    def cut(x: torch.Tensor, *others: Any) -> torch.Tensor:  # as TF32 does, to 10 bits
        return plain(x.half().to(x.dtype), *others)

    monkeypatch.setattr(torch.nn.functional, "linear", cut)
    found = exactness.Distances("cut", case, exactness.attached(case, "frozen", "masked"))
    assert not found.is_right and found.found["y"] > 1e-4
    assert not exactness.Distances("none", case, {"y": float("nan")}).is_right


def test_methods_take_turns_and_what_does_not_fit_is_told(monkeypatch: pytest.MonkeyPatch):
    real = methods.contender

    def contender(model: Any, method: str, batch: Any) -> Any:
        if method == "lora":
            raise torch.OutOfMemoryError("CUDA out of memory")
        if method == "gates":
            raise ValueError("no gates here\nat all")
        return real(model, method, batch)

    monkeypatch.setattr(methods, "contender", contender)
    found = methods.run(TOLD, "bert_tiny", "float32", ("full", "lora", "gates", "tiles"))
    cells = {line[0]: line[1:] for line in found.tables[0].lines}
    assert cells["lora"][0] == "does not fit into memory" and cells["gates"][0] == "ValueError: no gates here"
    assert found.wrong == "gates: ValueError: no gates here"
    assert cells["full"][0] == "136,258" and int(cells["tiles"][0].replace(",", "")) < 136_258


def test_ratios_are_of_medians_over_all_turns():
    taken = {"full": [Measured(9, 10, [1.0, 3.0]), Measured(9, 40, [2.0])], "fish": [Measured(1, 20, [1.0])]}
    full, fish = methods.lines(taken, {})
    assert full[1:] == ("9", "0.0", "1.00", "2000.0", "1000.0-3000.0", "1.00")
    assert (fish[3], fish[6]) == ("0.50", "0.50")


@pytest.mark.parametrize(
    "name", ["suite", "swaps", "mixed", "decoding", pytest.param("training", marks=pytest.mark.slow)]
)
def test_tiny_chunks_end_well(name: str):
    found = outcome(Source(chunk, machine), name, TOLD)
    assert found["status"] in ("done", "not here"), found["sentence"]
    assert bool(found["tables"]) == (found["status"] == "done") and found["machine"]["card"]


def test_chunks_are_those_that_the_page_of_the_docs_lists():
    text = (Path(__file__).parents[2] / "docs/device_check.md").read_text()
    for quick in (True, False):
        assert all(f"`{name}`" in text for name in chunks(quick)), [*chunks(quick)]
    with pytest.raises(ValueError, match="unknown chunk .kernel.; did you mean kernels"):
        chunk("kernel", True)


def test_the_suite_tells_what_pytest_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(suite, "ROOT", tmp_path)
    (tmp_path / "test_two.py").write_text("def test_good():\n    pass\n\n\ndef test_bad():\n    assert False\n")
    found: Part = suite.tested(["test_two.py"])
    assert found.facts["status"] == 1 and "1 failed, 1 passed" in found.wrong
    assert not suite.tested(["test_two.py", "-k", "good"]).wrong


def test_a_page_of_a_gpu_says_so():
    one = {"status": "done", "sentence": "", "seconds": 1.0, "date": "2026-01-02", "quick": False, "tables": []}
    here = {
        "device": "cuda",
        "card": "NVIDIA H200 (SXM)",
        "driver": "1.2",
        "memory": 10**9,
        "versions": {"torch": "2"},
    }
    text = page.page({"kernels": one}, here, "glue-sparse benchmark --device_check")
    assert "NVIDIA H200 (SXM); 1.0 GB; driver 1.2; 2026-01-02; torch 2." in text
    assert "No GPU" not in text and "tiny" not in text and page.name_of(here) == "nvidia_h200_sxm"
    assert pages.status(text) == "written by hand before result files were kept" and page.BY_HAND == pages.BY_HAND
