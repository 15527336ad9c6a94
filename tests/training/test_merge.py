"""Workers that merge: against a plain reference, in one process and in two, resumed, refreshed, counted."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forked import run_ranks
from glue_sparse import SparseDiff, check_folded, detach
from glue_sparse.core.active import active_tensors
from glue_sparse.core.parametrization import current_tensors
from glue_sparse.training.merging.exchange import InProcess
from glue_sparse.training.merging.worker import LocalOrder
from merging import PLANS, build
from networks import ImageNet, bert
from rare import rarely
from shared_runs import made_once

HELPERS = Path(__file__).parents[1] / "helpers"
USUAL = ["disjoint_sum", "dense_steps"]


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in current_tensors(model).items()}


def assert_same_diff(one: SparseDiff, two: SparseDiff, tolerance: float = 0.0) -> None:
    assert one.indices.keys() == two.indices.keys() and one.whole.keys() == two.whole.keys()
    for name in one.indices:
        assert torch.equal(one.indices[name], two.indices[name])
        torch.testing.assert_close(one.values[name], two.values[name], rtol=0, atol=tolerance)
    for name in one.whole:
        torch.testing.assert_close(one.whole[name], two.whole[name], rtol=0, atol=tolerance)


def processes(name: str, factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote for a plan."""
    group = [other for other in PLANS if (other in USUAL) == (name in USUAL)]
    folder = f"processes_{group[0]}"
    return made_once(factory, folder, lambda out: run_ranks(HELPERS / "merging.py", str(out), *group, count=2)) / name


@pytest.mark.parametrize("name", rarely(PLANS, USUAL))
def test_processes_and_simulation_give_the_same_weights_and_ledger(
    name: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
):
    found = processes(name, tmp_path_factory)
    merged = build(tmp_path, **PLANS[name])
    merged.run()
    diffs = [SparseDiff.from_pretrained(found / f"rank{rank}") for rank in (0, 1)]
    assert_same_diff(diffs[0], diffs[1])
    assert_same_diff(merged.sparse_diff(), diffs[0], tolerance=1e-6)
    reports = [json.loads((found / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    own = merged.communication()
    for key in ("merges", "sent_per_worker", "received_per_worker", "dense_sent_per_worker", "num_refreshes"):
        assert own[key] == reports[0][key] == reports[1][key]


@pytest.mark.parametrize("name", rarely(PLANS, USUAL))
def test_the_ledger_counts_what_the_collectives_were_given(name: str, tmp_path_factory: pytest.TempPathFactory):
    for rank in (0, 1):
        report = json.loads((processes(name, tmp_path_factory) / f"rank{rank}.json").read_text())
        counted = sum(row["sent"] for row in report["ledger"] if row["worker"] == rank)
        assert counted == report["wire"] > 0
        assert {row["worker"] for row in report["ledger"]} == {rank}


@pytest.mark.parametrize("rule", ["sum", "mean"])
@pytest.mark.parametrize("masks", ["disjoint", "shared"])
def test_one_merge_by_the_formula(tmp_path: Path, rule: str, masks: str):
    """theta + sum of (theta_i - theta), or their mean; the head is averaged either way."""
    options = {"merge_every": 3, "merge_rule": rule, "worker_masks": masks}
    merged = build(tmp_path, options={"max_grad_norm": 0.5}, **options)
    base = {name: tensor.clone() for name, tensor in merged.base.items()}
    merged._start()
    for worker in merged.workers:
        worker.train_until(3)
    alone = [tensors(worker.model) for worker in merged.workers]
    merged._merge()
    for worker in merged.workers:
        for name, value in tensors(worker.model).items():
            scale = 0.5 if rule == "mean" or name in merged.trainer.head else 1.0
            wanted = base[name] + scale * sum(theta[name] - base[name] for theta in alone)
            torch.testing.assert_close(value, wanted, rtol=0, atol=1e-7)
    chosen = [set(positions.tolist()) for positions in worker_positions(merged)]
    assert (chosen[0] == chosen[1]) if masks == "shared" else not chosen[0] & chosen[1]
    assert len(chosen[0]) == len(chosen[1])


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "sgd"])
def test_one_worker_alone_is_the_trainer(tmp_path: Path, optim: str):
    """Optimizer, decay, clipping, schedule and accumulation as in transformers; all data at each step, no dropout."""
    quiet: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    options = {
        "per_device_train_batch_size": 13, "gradient_accumulation_steps": 2, "max_steps": 6, "max_grad_norm": 0.5,
        "warmup_steps": 2, "optim": optim,
    }  # fmt: skip
    merged = build(tmp_path, "biases", bert(**quiet), options=options, merge_every=2, num_workers=1)
    merged.run()
    plain = build(tmp_path, "biases", bert(**quiet), options=options, merge_every=2, num_workers=1).trainer
    plain.train()
    wanted, found = tensors(plain.network), tensors(merged.workers[0].model)
    moved = max(float((wanted[name] - merged.base[name]).abs().max()) for name in wanted)
    assert moved > 1e-3
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=0, atol=moved / 1000)


def worker_positions(merged: Any) -> list[Tensor]:
    """Where each worker is active, as numbers over all its tensors."""
    found = []
    for worker in merged.workers:
        parts, offset = [], 0
        for name, entries in active_tensors(worker.model):
            parts.append(entries.indices + offset)
            offset += merged.base[name].numel()
        found.append(torch.cat(parts))
    return found


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_workers_agree_bit_for_bit_after_every_merge(tmp_path: Path, plan: dict[str, Any]):
    merged = build(tmp_path, **plan)
    merge = merged._merge

    def check() -> None:
        merge()
        for worker in merged.workers:
            check_folded(worker.model)
        first, second = (tensors(worker.model) for worker in merged.workers)
        assert all(torch.equal(first[name], second[name]) for name in first)

    merged._merge = check
    merged.run()


def test_entries_that_were_never_active_keep_their_bits(tmp_path: Path):
    merged = build(tmp_path, merge_every=3, refresh_every=2)
    ever = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in merged.shapes.items()}
    activate = merged._activate

    def note(shares: Any) -> None:
        for masks in shares:
            for name, mask in masks.items():
                ever[name] |= mask
        activate(shares)

    merged._activate = note
    merged.run()
    assert merged.num_refreshes == 1
    final = tensors(merged.workers[0].model)
    for name, mask in ever.items():
        assert torch.equal(final[name][~mask], merged.base[name][~mask])
    moved = sum(int((final[name] != merged.base[name]).sum()) for name in ever)
    assert moved > sum(len(p) for p in worker_positions(merged))  # also entries of the first masks
    diff = merged.sparse_diff()
    fresh = bert()
    diff.apply(fresh)
    assert all(torch.equal(final[name], tensor) for name, tensor in tensors(fresh).items())


@pytest.mark.parametrize("method", ["fish", "dense", "biases"])
def test_frozen_tensors_are_neither_trained_nor_sent(tmp_path: Path, method: str):
    model = bert()
    frozen = [name for name, _ in model.named_parameters() if "embeddings" in name or name == "classifier.bias"]
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    old = {name: model.get_parameter(name).detach().clone() for name in frozen}
    merged = build(tmp_path, method, model, merge_every=3)
    merged.run()
    assert not merged.shapes.keys() & old.keys()
    for worker in merged.workers:
        detach(worker.model)
        for name, tensor in old.items():
            assert torch.equal(worker.model.get_parameter(name), tensor)
            assert not worker.model.get_parameter(name).requires_grad


def test_random_entries_are_chosen_anew_at_each_refresh(tmp_path: Path):
    merged = build(tmp_path, method="noise", merge_every=3, refresh_every=1)
    merged._start()
    before = worker_positions(merged)[0]
    for worker in merged.workers:
        worker.train_until(3)
    merged._merge()
    merged._choose_again()
    after = worker_positions(merged)[0]
    assert len(before) == len(after) and not torch.equal(before, after)
    entries = dict(active_tensors(merged.workers[0].model))
    state = merged.workers[0].optimizer.state
    assert all(state[e.values]["exp_avg"].shape == e.values.shape for e in entries.values() if e.values in state)


@pytest.mark.parametrize("name", rarely(PLANS, USUAL[:1]))
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, name: str):
    plan = PLANS[name]
    options = {"save_strategy": "steps", "save_steps": 4, "save_total_limit": 3}
    merged = build(tmp_path, options=options, **plan)
    merged.run()
    checkpoints = sorted(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    assert len(checkpoints) == 3
    resumed = build(tmp_path / "again", options=options, **plan)
    resumed.run(str(checkpoints[0]))
    merged.sparse_diff().save_pretrained(tmp_path / "one")
    resumed.sparse_diff().save_pretrained(tmp_path / "two")
    one, two = (tmp_path / name / "sparse_diff.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert merged.communication() == resumed.communication()
    assert merged.trainer.state.log_history[-1]["step"] == resumed.trainer.state.log_history[-1]["step"]


def test_a_resumed_run_of_biases_equals_an_uninterrupted_one(tmp_path: Path):
    """A method by rule masks some tensors only; the others train whole before and after."""
    options = {"save_strategy": "steps", "save_steps": 0.3}
    merged = build(tmp_path, method="biases", options=options, merge_every=4)
    merged.run()
    resumed = build(tmp_path / "again", method="biases", options=options, merge_every=4)
    resumed.run(str(tmp_path / "checkpoint-4"))
    assert_same_diff(merged.sparse_diff(), resumed.sparse_diff())
    with pytest.raises(ValueError, match="is of 2 workers, not 3: resume with as many"):
        build(tmp_path / "more", method="biases", merge_every=4, num_workers=3).run(str(tmp_path / "checkpoint-4"))
    with pytest.raises(ValueError, match="for methods that choose by a score"):
        build(tmp_path / "more", method="biases", merge_every=4, dense_steps=4)


def test_dense_steps_train_everything_first(tmp_path: Path):
    merged = build(tmp_path, merge_every=5, dense_steps=7, refresh_every=0)
    merged.run()
    sent = merged.communication()["merges"]
    num_body = sum(shape.numel() for shape in merged.shapes.values())
    num_active = len(worker_positions(merged)[0])
    assert [m.get("values", [0])[0] for m in sent] == [0, 2 * 4 * num_body, 2 * 4 * num_body, *[2 * 4 * num_active] * 2]
    assert merged.exchange.merge == 4  # after steps 5, 7, 10 and 12
    assert sent[2]["indices"][0] == 2 * 4 * num_active + 24  # int32 for two workers, and the shape


def test_a_dense_run_sends_what_the_others_are_compared_with(tmp_path: Path):
    merged = build(tmp_path, method="dense", merge_every=4)
    merged.run()
    found = merged.communication()
    num_entries = sum(p.numel() for p in bert().parameters())
    assert found["sent_per_worker"] == found["dense_sent_per_worker"] == 3 * 4 * num_entries


def test_running_statistics_are_averaged_and_counted(tmp_path: Path):
    rows = [{"images": torch.randn(3, 8, 8), "labels": i % 3} for i in range(24)]
    merged = build(tmp_path, method="dense", model=ImageNet(), data=rows, merge_every=2)
    merged._start()
    for worker in merged.workers:
        worker.train_until(2)
    apart = [worker.model.get_buffer("norm.running_mean").clone() for worker in merged.workers]
    merged._merge()
    assert not torch.equal(apart[0], apart[1])
    for worker in merged.workers:
        torch.testing.assert_close(worker.model.get_buffer("norm.running_mean"), (apart[0] + apart[1]) / 2)
    assert [e.sent for e in merged.exchange.ledger.entries if e.kind == "buffers"] == [32, 32]


def test_an_order_is_a_function_of_the_step():
    whole = [LocalOrder(10, 4, 0, (i, 2), sharded=False) for i in (0, 1)]
    passes = [sum((order.batch(b) for b in range(3)), []) for order in whole]
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(10)) and passes[0] != passes[1]
    assert whole[0].batch(4) != whole[0].batch(1) and whole[0].batch(1) == passes[0][4:8]
    shards = [LocalOrder(10, 4, 0, (i, 3), sharded=True) for i in range(3)]
    rows = [sum((order.batch(b) for b in range(order.batches_per_pass)), []) for order in shards]
    assert sorted(sum(rows, [])) == list(range(10))
    with pytest.raises(ValueError, match="too few for 3 workers"):
        LocalOrder(2, 4, 0, (2, 3), sharded=True)


def test_a_run_is_as_long_with_shards_as_with_all_data(tmp_path: Path):
    options = {"max_steps": -1, "num_train_epochs": 1.5}
    runs = [build(tmp_path, options=options, merge_every=4, worker_data=data) for data in ("all", "sharded")]
    assert [run.num_steps for run in runs] == [11, 11]  # 7 batches of 4 in 26 examples, 1.5 times


def test_exchange_in_one_process():
    exchange = InProcess(2)
    exchange.merge = 3
    one, two = torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0])
    assert exchange.add("head", [one, two]).tolist() == [11.0, 22.0] and one.tolist() == [1.0, 2.0]
    assert [t.tolist() for t in exchange.gather("values", [one, two])] == [[1.0, 2.0], [10.0, 20.0]]
    exchange.broadcast("indices", torch.zeros(2, 5, dtype=torch.int32))
    counts = [(e.worker, e.merge, e.kind, e.sent, e.received) for e in exchange.ledger.entries]
    assert counts == [
        (0, 3, "head", 8, 8), (1, 3, "head", 8, 8), (0, 3, "values", 8, 16), (1, 3, "values", 8, 16),
        (0, 3, "indices", 64, 0), (1, 3, "indices", 0, 64),
    ]  # fmt: skip
