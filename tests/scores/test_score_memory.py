"""Scores of large models: one gradient at a time, sums in bfloat16, layers that are recomputed."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from decoders import causal
from glue_sparse.arguments.method import MethodArguments
from glue_sparse.core import recompute
from glue_sparse.core.params import body_names
from glue_sparse.methods import registry
from glue_sparse.scores import per_example
from glue_sparse.scores.fisher import fisher
from glue_sparse.scores.gradients import gradient, saliency
from glue_sparse.scores.passing import take_whole


def batches(rows: int = 4, count: int = 2) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        ids = torch.randint(3, 200, (rows, 7), generator=generator)
        found.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids})
    return found


def scored(score: Any, model: nn.Module, **options: Any) -> dict[str, Tensor]:
    return dict(score(model, body_names(model, ()), batches(), progress=False, **options))


@pytest.mark.parametrize("score", [fisher, gradient, saliency])
def test_sums_in_bfloat16_are_those_in_float32_up_to_its_rounding(score: Any):
    model = causal()
    right, found = scored(score, model), scored(score, model, dtype=torch.bfloat16)
    for name, total in right.items():
        top = float(total.max())
        assert (found[name].float() - total).abs().max() <= 2**-6 * top, name  # two roundings of 2^-8, and a product
        assert score is not fisher or found[name].dtype == torch.bfloat16
    assert any(not torch.equal(found[name].float(), total) for name, total in right.items())


def test_small_parts_are_not_lost_in_bfloat16():
    model = nn.Linear(64, 64, bias=False)
    with torch.no_grad():
        model.weight.zero_()

    class Losing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: Tensor, scale: Tensor) -> dict[str, Tensor]:
            return {"loss": (self.inner(x) * scale[:, None]).sum()}

    one = {"x": torch.ones(1, 64), "scale": torch.ones(1)}
    data = [one] + [{**one, "scale": torch.full((1,), 0.05)}] * 200  # squares of 1/400 beside 1: below half of 2^-8
    name = ("inner.weight",)
    found = fisher(Losing(), name, data, progress=False, dtype=torch.bfloat16)[name[0]].double()
    assert abs(float(found.mean()) - 1.5) < 0.01, "to the nearest number it would still be 1"


class Gradients:
    """Counts the gradients that are there at once, whenever one arrives."""

    def __init__(self, model: nn.Module):
        self.most, self.parameters = 0, [*model.parameters()]
        for parameter in self.parameters:
            parameter.register_post_accumulate_grad_hook(self.look)

    def look(self, _: Tensor) -> None:
        self.most = max(self.most, sum(p.grad is not None for p in self.parameters))


@pytest.mark.parametrize("score", [fisher, gradient])
@pytest.mark.parametrize("recomputes", [False, True])
def test_one_gradient_at_a_time(score: Any, recomputes: bool):
    model = causal()
    if recomputes:
        model.activation_checkpointing_enable()
    watched = Gradients(model)
    scored(score, model)
    assert watched.most == 1
    assert all(p.grad is None for p in model.parameters())


def test_a_tensor_whose_gradient_comes_in_parts_is_taken_whole():
    table = nn.Linear(3, 3, bias=False)
    x = torch.ones(2, 3, requires_grad=True)

    def parts(reentrant: bool) -> list[Tensor]:
        found: list[Tensor] = []
        hidden = x
        for _ in range(2):
            hidden = checkpoint(table, hidden, use_reentrant=reentrant)
        take_whole(hidden.sum(), {"weight": table.weight}, lambda name, grad: found.append(grad.clone()))  # pyright: ignore
        return found

    (whole,), (apart,) = parts(False), parts(True)
    assert torch.allclose(whole, apart)


@pytest.mark.parametrize("score", [fisher, gradient])
def test_scores_of_recomputed_layers_are_the_same_and_keep_few_activations(score: Any):
    model = causal(num_hidden_layers=4)
    right, most = scored(score, model), most_saved(score, model)
    model.activation_checkpointing_enable()
    before = model.config.use_cache
    found, fewer = scored(score, model), most_saved(score, model)
    for name, total in right.items():
        assert torch.allclose(found[name], total, rtol=1e-4, atol=1e-6 * float(total.max())), name
    assert fewer < most / 2
    assert model.config.use_cache == before and not any("forward" in vars(module) for module in model.modules())


def most_saved(score: Any, model: nn.Module) -> int:
    """Bytes that autograd keeps of a forward pass of one batch, without parameters, as the largest sum of a pass."""
    own, sums = {p.data_ptr() for p in model.parameters()}, [0]

    def saved(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            sums[-1] += tensor.nbytes
        return tensor

    def passed(*_: Any) -> None:
        sums.append(0)

    handles = [model.register_forward_pre_hook(passed), model.register_forward_hook(passed)]
    with torch.autograd.graph.saved_tensors_hooks(saved, lambda tensor: tensor):
        score(model, body_names(model, ()), batches(1, 1), progress=False)
    for handle in handles:
        handle.remove()
    return max(sums[1::2])  # what is saved between the two hooks, and not while layers are recomputed


def test_a_model_that_recomputes_nothing_has_no_such_layers():
    assert recompute.layers(causal()) == [] and len(recompute.layers(enabled())) == 2


def enabled() -> Any:
    model = causal()
    model.activation_checkpointing_enable()
    return model


def test_a_large_model_is_checked_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch):
    model, most = causal(), []
    right = scored(fisher, model)
    monkeypatch.setattr(per_example, "_PART_ENTRIES", 1)
    learn = per_example.PerExample._learn_part
    monkeypatch.setattr(per_example.PerExample, "_learn_part", lambda self, pair, names: (
        most.append(sum(self.totals[name].numel() for name in names)), learn(self, pair, names))[-1])  # fmt: skip
    found = scored(fisher, model)
    assert all(torch.equal(found[name], total) for name, total in right.items())
    largest = max(p.numel() for p in model.parameters())
    assert len(most) > 2 and max(most) <= sum(p.numel() for p in model.parameters()) / 8 + largest


@pytest.mark.parametrize("score", ["synflow", "grasp", "magnitude", "random"])
def test_a_type_of_sums_without_sums_is_refused(score: str):
    with pytest.raises(ValueError, match="`score_dtype` has no effect with `score`"):
        registry.build_method(MethodArguments(method="score", score=score, score_dtype="bfloat16"), 0)  # type: ignore


def test_the_flag_reaches_the_score():
    method: Any = registry.build_method(MethodArguments(method="fish", score_dtype="bfloat16", density=0.5), 0)
    found = method.score(causal(), ("model.norm.weight",), batches())
    assert found["model.norm.weight"].dtype == torch.bfloat16
