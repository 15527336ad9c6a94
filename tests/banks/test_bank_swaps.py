"""The benchmark of swaps: what it counts, without its times, which no test compares."""

from typing import Any

import pytest
import torch

from bank_tasks import made, same, snapshot
from glue_sparse.benchmarks import bank_swaps
from glue_sparse.benchmarks.bank_swaps import Case, diff_of, drawn, lines_of, overlap, swaps_of
from glue_sparse.benchmarks.bank_ways import Way, alternating
from networks import bert


def test_a_swap_touches_each_cache_line_of_both_tasks_once():
    model = bert()
    first, second = (diff_of(model, drawn(model, seed, 1), seed) for seed in (0, 1))
    table = "bert.embeddings.word_embeddings.weight"  # 800 entries, 50 lines
    for diff in (first, second):
        diff.indices.clear()
    first.indices[table], second.indices[table] = torch.tensor([0, 15, 16, 799]), torch.tensor([1, 17, 40])
    assert lines_of((first, second)) == 4
    assert overlap((made(bert(), 1), made(bert(), 1))) == 1


@pytest.mark.parametrize("run", [1, 4])
def test_drawn_masks_have_the_density(run: int):
    model = bert(hidden_size=64, intermediate_size=256, vocab_size=500)
    found = drawn(model, 0, run)
    count = sum(model.get_parameter(name).numel() for name in found)
    assert sum(map(len, found.values())) / count == pytest.approx(bank_swaps.DENSITY, rel=0.25)
    table = found["bert.embeddings.word_embeddings.weight"]
    neighbours = (table.diff() == 1).float().mean()
    assert neighbours > 0.7 if run == 4 else neighbours < 0.1


def test_a_table_of_swaps_leaves_the_base(capsys: pytest.CaptureFixture[str]):
    model = bert()
    before = snapshot(model)
    pair = tuple(diff_of(model, drawn(model, seed, 1), seed) for seed in (0, 1))
    (found,) = swaps_of([Case("tiny", "random", (pair[0], pair[1]))], model, 2, 1e9)
    assert same(model, before) and found["entries"] == pair[0].num_active and found["floor"] > 0
    assert found["bytes"] == 16 * pair[0].num_active + sum(t.nbytes for t in pair[0].whole.values())


def test_ways_take_turns_each_ready_when_it_is_timed():
    seen: list[str] = []

    def way(name: str) -> Way:
        return Way(name, lambda: seen.append(name.upper()), lambda: seen.append(name))

    times = alternating([way("a"), way("b")], 2)
    assert "".join(seen) == "AaBbBbAaAaBb" and len(times) == 2


@pytest.mark.slow
def test_the_tables_of_swaps(tiny_bert: str, monkeypatch: pytest.MonkeyPatch):
    """On a model of two layers, in place of MiniLM and of the large one."""

    def scored(task: str, data_dir: str | None) -> Any:
        model = bert()
        return task, model, [drawn(model, seed, 1) for seed in range(2)]

    monkeypatch.setattr(bank_swaps, "scored", scored)
    monkeypatch.setattr(bank_swaps, "build", lambda: bert().eval())
    monkeypatch.setattr(bank_swaps, "many", _few)
    monkeypatch.setattr(bank_swaps, "short_batch", lambda: {"input_ids": torch.arange(8)[None]})
    monkeypatch.setattr(bank_swaps, "LARGE", {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                                              "intermediate_size": 32})  # fmt: skip
    page, facts = bank_swaps.measured(1, "words", None, quick=False)
    assert page.count("FISH, words") == 1 and page.count("BERT-large's shape") == 4
    assert all(f"| {way} " in page for way in ("TaskBank, task to task", "from_pretrained from disk"))
    assert {*facts} == {"bandwidth", "rounds", "swaps", "beside", "first"}


def _few(paths: Any, threads: int) -> dict[str, Any]:
    return {"seconds": 1.0, "before": 1, "added": 1, "used": 1, "held": 1, "max_loaded": 8, "task": 1}
