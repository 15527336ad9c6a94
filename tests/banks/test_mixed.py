"""Rows of several tasks in one batch: the same outputs as task after task, or a refusal that changes nothing."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import T5Config, T5EncoderModel, ViTConfig, ViTForImageClassification

import decoders
import networks
from glue_sparse import attach, noise, select
from glue_sparse.banks.corrections import CannotMix
from glue_sparse.banks.mixed import MixedForward, loop_forward
from glue_sparse.diffs.diff import SparseDiff
from mixed_tasks import furthest, random_task, swapping, tokens

TASKS = ["a", "b", None, "a", "c", "c", "a", "b"]


def vit() -> Any:
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=8, patch_size=4
    )
    return ViTForImageClassification(config).eval()


def t5() -> Any:
    config: Any = T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    return T5EncoderModel(config).eval()


def both(model: Any, diffs: dict[str, SparseDiff], batch: dict[str, Any], tasks: list[str | None]) -> tuple[Any, Any]:
    """(mixed, task after task), and the model is as before."""
    mixed = MixedForward(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    forwards = [module.__dict__.get("forward") for module in model.modules()]
    found = mixed.forward(batch, tasks, {name: mixed.prepare(diff) for name, diff in diffs.items()})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [module.__dict__.get("forward") for module in model.modules()] == forwards
    return found, loop_forward(swapping(model, diffs), model, batch, tasks)


@pytest.mark.parametrize("length", [5, 30])  # below and above FEW positions of a row
@pytest.mark.parametrize(
    "build",
    [networks.bert, networks.roberta, networks.distilbert, networks.gpt2, networks.llama, decoders.causal,
     decoders.gpt2_causal, lambda: decoders.causal(tied=False)],
)  # fmt: skip
def test_rows_of_several_tasks_as_task_after_task(build: Callable[[], Any], length: int):
    model = build().eval()
    is_classifier = hasattr(model, "num_labels") and "Sequence" in type(model).__name__
    outputs = (2, 3, 1) if is_classifier else (None,) * 3
    diffs = {name: random_task(model, seed, (0.1, 0.5, 0.02)[seed], outputs=count)
             for seed, (name, count) in enumerate(zip("abc", outputs, strict=True))}  # fmt: skip
    mixed, loop = both(model, diffs, tokens(8, length), [*TASKS])
    assert furthest(mixed, loop) < 1e-5
    if is_classifier:
        widths = [len(row) for row in mixed["logits"]]
        assert widths == [2, 3, 2, 2, 1, 1, 2, 3]
    base = loop_forward(swapping(model, diffs), model, tokens(8, length), [None] * 8)
    for task, row, other in zip(TASKS, mixed["logits"], base["logits"], strict=True):
        assert task is None or row.shape != other.shape or not torch.allclose(row, other, rtol=0.01)


@pytest.mark.parametrize("tasks", [["a"] * 4, [None] * 4, ["a", "b", "c", None], ["c", "a", "c", "a"]])
def test_any_mixture(tasks: list[str | None]):
    model = networks.bert().eval()
    diffs = {name: random_task(model, seed) for seed, name in enumerate("abc")}
    assert furthest(*both(model, diffs, tokens(4, 9), tasks)) < 1e-5


def test_rows_without_changes_have_the_bits_of_the_base():
    model, batch = networks.bert().eval(), tokens(4, 5)
    diffs = {"a": random_task(model, only="layer.1.output.dense")}
    mixed, _ = both(model, diffs, batch, [None, None, "a", "a"])
    with torch.no_grad():
        base = model(**batch).logits
    assert torch.equal(torch.stack(mixed["logits"][:2]), base[:2])
    assert not torch.allclose(mixed["logits"][2], base[2])


def test_a_base_in_bfloat16():
    model = networks.cast(networks.bert(), torch.bfloat16).eval()
    diffs = {name: random_task(model, seed) for seed, name in enumerate("abc")}
    for length in (5, 30):
        assert furthest(*both(model, diffs, tokens(8, length), [*TASKS])) < 0.03


def test_under_autocast_no_cast_of_another_task_is_kept():
    model = networks.bert().eval()
    diffs = {name: random_task(model, seed) for seed, name in enumerate("abc")}
    for length in (5, 30):
        batch = tokens(8, length)
        exact, _ = both(model, diffs, batch, [*TASKS])
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            model(**batch)  # and none of the base
            rounded = both(model, diffs, batch, [*TASKS])
        assert all(0 < furthest(one, exact) < 0.05 for one in rounded)
        assert torch.is_autocast_cache_enabled()


def test_images_and_the_convolution_before_them():
    model, chance = vit(), torch.Generator().manual_seed(0)
    batch = {"pixel_values": torch.randn(8, 3, 8, 8, generator=chance)}
    diffs = {name: random_task(model, seed, only=kind)
             for seed, (name, kind) in enumerate({"a": "patch", "b": "layer", "c": "patch"}.items())}  # fmt: skip
    assert diffs["a"].indices.keys() == diffs["c"].indices.keys()
    assert furthest(*both(model, diffs, batch, [*TASKS])) < 1e-5
    with pytest.raises(CannotMix, match="cls_token is held by a module that has others"):
        MixedForward(model).prepare(random_task(model, only="cls_token", share=1))


def test_an_encoder_whose_bias_of_positions_is_a_table():
    model, batch = t5(), tokens(6, 6, padded=False)
    kinds = {"a": "SelfAttention.q", "b": "DenseReluDense", "c": "shared"}
    diffs = {name: random_task(model, seed, only=kind) for seed, (name, kind) in enumerate(kinds.items())}
    assert furthest(*both(model, diffs, batch, ["a", "b", None, "a", "c", "c"])) < 1e-5
    diffs = {"a": random_task(model, only="relative_attention_bias")}
    with pytest.raises(CannotMix, match="relative_attention_bias.weight takes or gives tensors whose first axis"):
        both(model, diffs, batch, ["a"] * 3 + [None] * 3)  # six rows of six tokens, so that the axes have one size


def test_hidden_states_and_no_caches():
    model = networks.gpt2().eval()
    batch = {**tokens(3, 5), "output_hidden_states": True, "use_cache": True}
    found, loop = both(model, {"a": random_task(model)}, batch, ["a", None, "a"])
    assert found.keys() == {"logits", "hidden_states"}
    assert [len(row) for row in found["hidden_states"]] == [3, 3, 3]
    for one, other in zip(found["hidden_states"], loop["hidden_states"], strict=True):
        assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(one, other, strict=True))


class Odd(nn.Module):
    """Layers that are used in ways in which rows cannot be told apart."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.plain, self.flat = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.sequence, self.unused = nn.Linear(8, 8), nn.Linear(8, 8)
        self.fails, self.skips = False, False

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        x = self.table(input_ids) if self.skips else self.plain(self.table(input_ids))
        x = self.flat(x.reshape(-1, 8)).reshape(x.shape)
        x = self.sequence(x.transpose(0, 1)).transpose(0, 1)
        if self.fails:
            raise RuntimeError("out of luck")
        return {"logits": F.linear(x, self.table.weight), "total": x.sum()}


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("table", "table.weight is used outside of the layer"),
        ("flat", "flat.weight takes or gives tensors whose first axis is not that of the rows"),
        ("sequence", "sequence.weight takes or gives tensors"),
        ("unused", "unused.weight is never called"),
    ],
)
def test_layers_that_do_not_see_rows_are_refused(layer: str, message: str):
    model = Odd().eval()
    ids = torch.arange(9).reshape(3, 3)
    mixed = MixedForward(model)
    found = {"a": mixed.prepare(random_task(model, only=layer, share=0.3))}
    with pytest.raises(CannotMix, match=message):
        mixed.forward({"input_ids": ids}, ["a", None, "a"], found)
    found = {"a": mixed.prepare(random_task(model, only="plain", share=0.3))}
    assert mixed.forward({"input_ids": ids}, ["a", None, "a"], found).keys() == {"logits"}


def test_a_layer_that_a_pass_leaves_out_is_told():
    model = Odd().eval()
    mixed, batch = MixedForward(model), {"input_ids": torch.arange(9).reshape(3, 3)}
    found = {"a": mixed.prepare(random_task(model, only="plain", share=0.3))}
    mixed.forward(batch, ["a", None, "a"], found)
    model.skips = True
    with pytest.raises(CannotMix, match="plain.weight was not used by the layer"):
        mixed.forward(batch, ["a", None, "a"], found)


def test_what_is_computed_from_all_outputs_of_heads_of_several_sizes_is_refused():
    """Those that a narrower head lacks would take part in the sum of a softmax."""
    model = networks.bert().eval()
    model.register_forward_hook(lambda module, args, output: {"shares": output.logits.softmax(-1)})
    diffs = {name: random_task(model, seed, outputs=size) for seed, (name, size) in enumerate([("a", 2), ("b", 3)])}
    mixed, tasks = MixedForward(model), ["a", "b", "a"]
    found = {name: mixed.prepare(diff) for name, diff in diffs.items()}
    with pytest.raises(CannotMix, match="`shares` is made of all outputs of a head"):
        mixed.forward(tokens(3, 5), tasks, found)
    one = mixed.forward(tokens(3, 5), ["b", "b", "b"], found)
    assert furthest(one, loop_forward(swapping(model, diffs), model, tokens(3, 5), ["b", "b", "b"])) < 1e-5


def test_after_an_exception_all_is_as_before():
    model = Odd().eval()
    mixed, batch = MixedForward(model), {"input_ids": torch.arange(40).remainder(20).reshape(2, 20)}
    found = {"a": mixed.prepare(random_task(model, only="plain", share=0.3))}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    mixed.forward(batch, ["a", None], found)
    model.fails = True
    with pytest.raises(RuntimeError, match="out of luck"):
        mixed.forward(batch, ["a", None], found)
    model.fails = False
    model.plain.__dict__["forward"] = own = lambda x: model.flat(
        x[0, 0, 0]
    )  # which fails within a layer that holds a task
    with pytest.raises(RuntimeError, match="at least 1D"):
        mixed.forward(batch, ["a", None], found)
    assert model.plain.__dict__.pop("forward") is own
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_refusals():
    model, batch = networks.bert().eval(), tokens(2, 5)
    diff, mixed = random_task(model), MixedForward(model)
    found = {"a": mixed.prepare(diff)}
    with pytest.raises(CannotMix, match="inactive entries of this diff are zero"):
        mixed.prepare(replace(diff, info=replace(diff.info, inactive="zero")))
    with pytest.raises(ValueError, match="has no tensor"):
        mixed.prepare(random_task(networks.gpt2()))
    with pytest.raises(ValueError, match="has shape"):
        mixed.prepare(random_task(networks.bert(hidden_size=32)))
    use, ways = swapping(model, {"a": diff}), list[Callable[[Any, Any], Any]]()
    ways += [lambda batch, tasks: mixed.forward(batch, tasks, found)]
    ways += [lambda batch, tasks: loop_forward(use, model, batch, tasks)]
    for way in ways:
        with pytest.raises(ValueError, match="leave out `labels`"):
            way({**batch, "labels": torch.zeros(2)}, ["a", "a"])
        with pytest.raises(ValueError, match="there are 3 `tasks`"):
            way(batch, ["a", "a", "a"])
        with pytest.raises(ValueError, match="`tasks` is empty"):
            way({}, [])
        with pytest.raises(ValueError, match="`past` is a list"):
            way({**batch, "past": []}, ["a", "a"])
        with pytest.raises(ValueError, match="its fields must have names"):
            way({**batch, "return_dict": False}, ["a", "a"])
    with pytest.raises(ValueError, match="no corrections for the task b"):
        mixed.forward(batch, ["a", "b"], found)
    model.train()
    with pytest.raises(ValueError, match="training mode"):
        mixed.forward(batch, ["a", "a"], found)
    attach(model, select(noise(model, tuple(n for n, _ in model.named_parameters())), 100))
    with pytest.raises(ValueError, match="active entries of its own"):
        MixedForward(model)


def test_a_model_with_a_compiled_part_is_refused():
    model = networks.bert().eval()
    model.bert.encoder._compiled_call_impl = model.bert.encoder._call_impl  # as `compile()` sets it, which loads a lot
    with pytest.raises(ValueError, match="without `torch.compile`"):
        MixedForward(model)
