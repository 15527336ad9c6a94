"""Scores against plain loops: the Fisher of every layer kind, its estimators, and what it must leave alone."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from glue_sparse.core.batches import example
from glue_sparse.scores import parts
from glue_sparse.scores.fisher import fisher
from glue_sparse.scores.scores import magnitude, noise
from networks import ImageNet, bert, collate, distilbert, examples, gpt2, llama, roberta


def plain_fisher(model: nn.Module, batches: list, power=torch.square) -> dict[str, torch.Tensor]:
    """The definition: one example, one backward pass, one square."""
    model.eval()
    totals = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for batch in batches:
        for i in range(len(batch["labels"])):
            model.zero_grad()
            model(**example(batch, i))["loss"].backward()
            for name, p in model.named_parameters():
                if p.grad is not None:
                    totals[name] += power(p.grad)
    model.zero_grad()
    return totals


@pytest.mark.parametrize("build", [bert, roberta, distilbert, gpt2, llama])
@pytest.mark.parametrize("power", ["square", "absolute"])
def test_fisher_equals_the_plain_loop(build: Any, power: Any):
    torch.manual_seed(0)
    model = build(3)
    rows = examples(11, num_labels=3)
    batches = [collate(rows[i : i + 4]) for i in range(0, 11, 4)]
    expected = plain_fisher(model, batches, torch.square if power == "square" else torch.abs)
    found = fisher(model, tuple(expected), batches, power=power, progress=False)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-8, msg=name)
    assert any(expected[name].abs().max() > 1e-4 for name in expected)


def test_fisher_of_convolutions_and_of_a_bare_parameter():
    torch.manual_seed(0)
    model = ImageNet()
    model.norm.running_mean = torch.randn(4)
    batches = [{"images": torch.randn(5, 3, 8, 8), "labels": torch.randint(0, 3, (5,))} for _ in range(3)]
    expected = plain_fisher(model, batches)
    found = fisher(model, tuple(expected), batches, progress=False)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-8, msg=name)


def test_fisher_of_a_tied_tensor_adds_its_uses_before_squaring():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(9, 9)
            self.out = nn.Linear(9, 9, bias=False)
            self.out.weight = self.table.weight

        def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            logits = self.out(self.table(ids).mean(1))
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    torch.manual_seed(0)
    model = Tied()
    batches = [{"ids": torch.randint(0, 9, (4, 5)), "labels": torch.randint(0, 9, (4,))}]
    expected = plain_fisher(model, batches)
    found = fisher(model, tuple(expected), batches, progress=False)
    torch.testing.assert_close(found["table.weight"], expected["table.weight"], rtol=1e-4, atol=1e-8)


def test_expected_fisher_is_the_exact_expectation_over_classes():
    model, batch = bert(3), collate(examples(4, num_labels=3))
    names = tuple(name for name, _ in model.named_parameters())
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    model.eval()
    for i in range(4):
        for label in range(3):
            one = {**example(batch, i), "labels": torch.tensor([label])}
            output = model(**one)
            p = output.logits.softmax(-1)[0, label].item()
            model.zero_grad()
            output.loss.backward()
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    expected[name] += p * parameter.grad**2
    found = fisher(model, names, [batch], estimator="expected", progress=False)
    for name in names:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-8, msg=name)


def test_sampled_fisher_uses_the_models_own_labels_and_the_seed():
    model, batch = bert(2), collate(examples(6))
    names = ("bert.pooler.dense.weight",)
    first = fisher(model, names, [batch], estimator="sampled", seed=1, progress=False)
    again = fisher(model, names, [batch], estimator="sampled", seed=1, progress=False)
    other = fisher(model, names, [batch], estimator="sampled", seed=2, progress=False)
    assert torch.equal(first[names[0]], again[names[0]]) and not torch.equal(first[names[0]], other[names[0]])


@pytest.mark.parametrize("estimator", ["expected", "sampled"])
def test_regression_has_no_expectation(estimator: Any):
    model, batch = bert(1), collate(examples(4))
    with pytest.raises(ValueError, match="use the `label` Fisher"):
        fisher(model, ("classifier.weight",), [batch], estimator=estimator, progress=False)


def test_fisher_leaves_gradients_mode_flags_and_random_state_alone():
    model, batch = bert(), collate(examples(4))
    model.train()
    model.bert.encoder.eval()
    model.classifier.weight.grad = torch.ones_like(model.classifier.weight)
    model.get_parameter("bert.pooler.dense.bias").requires_grad_(False)
    modes, state = [m.training for m in model.modules()], torch.get_rng_state()
    found = fisher(model, ("bert.pooler.dense.weight", "bert.pooler.dense.bias"), [batch], progress=False)
    assert not found["bert.pooler.dense.bias"].any() and found["bert.pooler.dense.weight"].any()  # what is frozen: 0
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert [n for n, p in model.named_parameters() if p.grad is not None] == ["classifier.weight"]
    assert torch.equal(model.classifier.weight.grad, torch.ones_like(model.classifier.weight))
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["bert.pooler.dense.bias"]
    assert not any(m._forward_hooks for m in model.modules())


def test_fisher_of_a_bfloat16_model_is_summed_in_float32():
    model = bert().bfloat16()
    found = fisher(model, ("bert.pooler.dense.weight",), [collate(examples(4))], progress=False)
    assert found["bert.pooler.dense.weight"].dtype == torch.float32


def test_noise_depends_on_seed_and_name_only_and_magnitude_is_absolute():
    model, names = bert(), ("bert.pooler.dense.weight", "bert.encoder.layer.0.attention.self.query.weight")
    first, second = noise(model, names, seed=3), noise(bert(seed=5), names[::-1], seed=3)
    assert all(torch.equal(first[n], second[n]) for n in names)
    assert not torch.equal(*first.values()) and not torch.equal(first[names[0]], noise(model, names, seed=4)[names[0]])
    assert torch.equal(magnitude(model, names)[names[0]], model.get_parameter(names[0]).abs())


@pytest.mark.parametrize("power", [torch.square, torch.abs])
def test_tiles_and_rows_that_are_left_out_change_no_sum(power, monkeypatch: pytest.MonkeyPatch):
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(5, 7, width, generator=generator) for width in (11, 6))
    expected = {}
    for kind, kept in (("all", torch.ones(5, 7)), ("some", (torch.rand(5, 7, generator=generator) < 0.4).float()),
                       ("one each", torch.eye(7)[:5]), ("none", torch.zeros(5, 7))):  # fmt: skip
        grads = left * kept.unsqueeze(-1)
        expected[kind] = grads, power(torch.einsum("nta,ntb->nab", grads, right)).sum(0)
    for entries in (1, 13, 1 << 20):
        monkeypatch.setattr(parts, "_TILE_ENTRIES", entries)
        for kind, (grads, total) in expected.items():
            for sides, right_sum in (((grads, right), total), ((right, grads), total.T)):
                found = torch.ones_like(right_sum)
                parts.Outer(*sides).add(found, power)
                torch.testing.assert_close(found, 1 + right_sum, msg=f"{kind}, {entries}")


def test_rows_that_are_tiny_are_not_left_out():
    left, right = torch.full((2, 3, 4), 1e-30), torch.full((2, 3, 5), 1e3)
    total = torch.zeros(4, 5)
    parts.Outer(left, right).add(total, torch.abs)
    torch.testing.assert_close(total, torch.full((4, 5), 6e-27), rtol=1e-4, atol=0)
