"""Bytes sent, seconds and what fits, by hand and by what must hold whatever the constants are."""

from dataclasses import replace
from pathlib import Path

import pytest

from glue_sparse.scaling import devices, page, shapes
from glue_sparse.scaling.plan import Cell, Work, cell, flops_per_token, plan
from glue_sparse.scaling.shapes import Decoder
from glue_sparse.scaling.traffic import Call, Kind, Operation, Sharding, Way, calls, handed_bytes, sent_bytes

SMALL = Decoder(40, 16, 24, 2, 4, 2, "tests")
ALL, LORA, ACTIVE = Way("all", whole=True), Way("lora", rank=3), Way("active", density=0.01)
WAYS = (ALL, LORA, ACTIVE)
H100 = devices.read("h100")


def handed(way: Way, sharding: Sharding) -> dict[tuple[Kind, Operation], int]:
    """Bytes by what is sent, and how."""
    return dict(handed_bytes(calls(SMALL, way, sharding)))


def test_bytes_of_three_ranks_by_hand():
    """In three chunks rows of 16, 8, 24 and 40 are 6, 3, 8 and 14; LoRA's of 3 are 1. Norms of 16 are 6."""
    layer = 6 * 16 + 2 * 3 * 16 + 6 * 16 + 2 * 8 * 16 + 6 * 24 + 2 * 6
    outside = 2 * 14 * 16 + 6
    adapters = 6 * 16 + 24 + 3 * (6 + 3 + 3 + 6 + 8 + 8 + 6)
    three = Sharding(3)
    assert handed(ALL, three) == {
        ("weights", "all_gather"): 2 * (2 * 2 * layer + outside),
        ("gradients", "reduce_scatter"): 3 * 4 * (2 * layer + outside),
        ("other", "all_reduce"): 4 * (2 * 9 + 3),
    }
    assert handed(LORA, three) == {
        ("weights", "all_gather"): 2 * (2 * 2 * (layer + adapters) + outside),
        ("gradients", "reduce_scatter"): 3 * 4 * 2 * adapters,
        ("other", "all_reduce"): 4 * 2 * 14,
    }
    k = ACTIVE.num_active(SMALL)
    assert k % 3 == 1  # so that two numbers are padding
    assert handed(ACTIVE, three) == {
        ("weights", "all_gather"): 2 * (2 * 2 * layer + outside),
        ("gradients", "reduce_scatter"): 4 * (k + 2),
        ("gradients", "all_gather"): 4 * (k + 2) // 3,
    }


@pytest.mark.parametrize("ranks", [2, 3, 64])
def test_gradients_of_active_values_are_sent_twice_but_for_a_rank_s_own(ranks: int):
    sent = sent_bytes(calls(SMALL, ACTIVE, Sharding(ranks)), ranks)
    k = 4 * ACTIVE.num_active(SMALL)
    assert 2 * k * (ranks - 1) / ranks <= sent["gradients"] < 2 * (k + 4 * ranks) * (ranks - 1) / ranks


def test_micro_steps_send_weights_and_sharded_gradients_again_and_active_ones_once():
    one, four = ({way.name: handed(way, Sharding(8, micro_steps=steps)) for way in WAYS} for steps in (1, 4))
    for way in WAYS:
        for sent, count in one[way.name].items():
            again = sent[0] == "weights" or sent[0] == "gradients" and way is not ACTIVE
            assert four[way.name][sent] == count * (4 if again else 1), (way, sent)


def test_rings_pass_shards_on():
    told = {"all_gather": 3 * 100, "reduce_scatter": 75, "all_reduce": 150}
    for operation, sent in told.items():
        assert Call("other", operation, 100, 2, hides=False).sent(4) == 2 * sent  # pyright: ignore[reportArgumentType]


def test_a_rank_alone_sends_nothing():
    assert not any(calls(SMALL, way, Sharding(1)) for way in WAYS)


def test_products_of_a_step():
    """Forward, gradients of inputs and of weights: 3 f_D, and 2 f_D and little more where a rank of LoRA trains."""
    forward = SMALL.forward_flops(8)
    dense = forward.total()
    assert flops_per_token(SMALL, ALL, 8, False) == flops_per_token(SMALL, ACTIVE, 8, False) == 3 * dense
    assert flops_per_token(SMALL, ALL, 8, True) == 4 * dense
    adapters = 2 * 2 * 3 * sum(map(sum, SMALL.linear_maps()))
    assert flops_per_token(SMALL, LORA, 8, False) == 2 * dense + forward["attention"] + 3 * adapters


def test_bandwidths_within_and_between_nodes():
    device = H100.given(link_share=1.0)
    assert device.bandwidth(8) == device.node_link.value
    assert device.bandwidth(16) == 8 * device.network_link.value < device.node_link.value
    slow = replace(device, node_gpus=replace(device.node_gpus, value=2))
    assert slow.bandwidth(4) == 2 * device.network_link.value


def test_seconds_of_a_step():
    device, way = H100.given(call_seconds=0.0, link_share=0.5, compute_share=0.5), ACTIVE
    found = cell("small", SMALL, way, 8, Work(64, 8), device)
    told = calls(SMALL, way, Sharding(8))
    base = sum(call.sent(8) for call in told if call.kind == "weights") / 2.25e11
    values = sum(call.sent(8) for call in told if call.kind == "gradients") / 2.25e11
    compute = 64 * flops_per_token(SMALL, way, 8, False) / (0.5 * 9.895e14)
    assert found.compute == pytest.approx(compute) and found.communication == pytest.approx(base + values)
    assert found.hidden == pytest.approx(max(compute, base) + values)
    assert found.apart == pytest.approx(compute + base + values)
    assert found.tokens_per_second == pytest.approx(8 * 64 / found.hidden)
    waiting = cell("small", SMALL, way, 8, Work(64, 8), device.given(call_seconds=1.0))
    assert waiting.communication - found.communication == pytest.approx(3 * (2 * 2 + 1 + 2))  # log2 8 for each call


def on(memory: float) -> Cell:
    """A cell on a device of so many bytes."""
    told = replace(H100, memory_bytes=replace(H100.memory_bytes, value=memory)).given(memory_share=1.0)
    return cell("small", SMALL, ALL, 8, Work(64, 8), told)


def test_layers_are_recomputed_only_where_they_must_be_and_some_do_not_fit():
    usual = on(8e10)
    used = usual.memory
    assert used.kept > used.recomputed
    assert on(used.total(False)).recomputes is usual.recomputes is False
    assert on(used.total(False) - 1).recomputes is True and on(used.total(True)).recomputes is True
    assert on(used.total(True) - 1).recomputes is None
    assert on(used.total(True)).compute == on(used.total(True) - 1).compute == pytest.approx(4 / 3 * usual.compute)


def test_each_constant_has_a_source_and_what_is_given_is_told():
    for name in ("h100", "h200"):
        told = devices.read(name).constants()
        assert all(one.source for one in told.values())
        assumed = {key for key, one in told.items() if one.kind == "assumed"}
        assert assumed == {"compute_share", "link_share", "memory_share", "call_seconds"}
    text = page.as_markdown(page.Plan([], {}, Work(), H100.given(compute_share=0.25)))
    assert "* `compute_share` = 0.25 (given): on the command line." in text
    assert "* `link_share` = 0.8 (assumed)" in text


def test_a_file_of_constants_is_read_and_what_is_wrong_with_one_is_said(tmp_path: Path):
    text = devices.SHIPPED.read_text()
    alone, file = text.partition("h200:")[0].replace("8.0e+10", "4.0e+10"), tmp_path / "mine.yaml"
    file.write_text(alone)
    assert devices.read(str(file)).memory_bytes.value == 4e10
    for wrong, said in ((text, "holds 2 devices"),
                        (alone.replace("value: 0.8", "value: 8"), "`link_share` must be in"),
                        (alone.replace("4.0e+10", "0"), "`memory_bytes` must be above 0"),
                        (alone.replace("kind: assumed", "kind: guessed"), "`h100.compute_share.kind`")):  # fmt: skip
        file.write_text(wrong)
        with pytest.raises(ValueError, match=said):
            devices.read(str(file))


def test_full_fine_tuning_of_70b_does_not_fit_where_frozen_weights_do():
    """As published shapes and constants have it: 16 bytes a weight over eight GPUs of 80 GB, and 2 bytes."""
    found = {one.way: one for one in plan(shapes.read(["70b"]), [8], WAYS, Work(), H100)}
    assert found["all"].recomputes is None and found["active"].recomputes is True
    text = page.as_markdown(page.Plan([*found.values()], shapes.read(["70b"]), Work(), H100))
    (line,) = (line for line in text.splitlines() if line.startswith("| 8 ") and line.count("does not fit") and
               "-" in line)  # fmt: skip
    assert line.split("|")[2].strip() == "all"
