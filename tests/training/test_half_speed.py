"""That bfloat16 is slow here is said once, where it is used and is slow."""

import logging
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainingArguments

from glue_sparse.training import half_speed


@pytest.mark.parametrize(
    ("flag", "factor", "process", "said"),
    [("bf16", 9.84, 0, True), ("bf16_full_eval", 3.0, 0, True), ("bf16", 1.1, 0, False), ("bf16", 9.8, 1, False)],
)
def test_slow_bfloat16_is_named_with_its_factor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    flag: str, factor: float, process: int, said: bool,
):  # fmt: skip
    monkeypatch.setattr(half_speed, "slowdown", lambda: factor)
    options: dict[str, Any] = {flag: True}
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **options)
    monkeypatch.setattr(type(args), "process_index", process)
    with caplog.at_level(logging.WARNING):
        half_speed.announce(args)
    expected = f"bfloat16 is {factor:.1f} times slower than float32 on this processor: leave `{flag}` out"
    assert caplog.messages == ([expected] if said else [])


def test_without_bfloat16_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(half_speed, "slowdown", lambda: pytest.fail("measured"))
    half_speed.announce(TrainingArguments(output_dir=str(tmp_path), use_cpu=True))


def test_the_factor_is_a_ratio_of_times():
    assert 0 < half_speed.slowdown() < 10_000
