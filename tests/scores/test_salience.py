"""Named scores against their plain formulas, on one process and on the shares of two."""

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import nn

from glue_sparse.core.batches import Examples
from glue_sparse.core.options import Salience
from glue_sparse.models.vision import ResNet34, ResNet34Config
from glue_sparse.scores.named import SCORES, named
from glue_sparse.scores.scores import Staged
from networks import ImageNet, bert, collate, examples, gpt2, llama, roberta

Tensors = dict[str, torch.Tensor]
FORMULAS: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "gradient": lambda w, g, hg: g.abs(),
    "saliency": lambda w, g, hg: (w * g).abs(),
    "taylor": lambda w, g, hg: (w * g) ** 2,
    "skeletonization": lambda w, g, hg: -w * g,
    "grasp": lambda w, g, hg: w * hg,
}


def texts(num_rows: int = 11, size: int = 4) -> list[dict[str, torch.Tensor]]:
    """Batches of unequal sizes."""
    rows = examples(num_rows, num_labels=3)
    return [collate(rows[i : i + size]) for i in range(0, num_rows, size)]


def images(size: int = 16) -> list[dict[str, torch.Tensor]]:
    return [{"pixel_values": torch.randn(n, 3, size, size), "labels": torch.randint(0, 10, (n,))} for n in (4, 3)]


def resnet() -> nn.Module:
    return ResNet34(ResNet34Config(embedding_size=4, hidden_sizes=[4, 4, 8, 8], depths=[1] * 4, num_labels=10))


def plain(model: nn.Module, names: tuple[str, ...], batches: list) -> tuple[Tensors, Tensors]:
    """Gradient and Hessian-vector product of the sum of all examples' losses, in one graph."""
    model.eval()
    model.config._attn_implementation = "eager"  # pyright: ignore
    parameters = [model.get_parameter(name) for name in names]
    loss = torch.stack([len(b["labels"]) * model(**b)["loss"] for b in batches]).sum()
    g = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
    flow = sum((one * one.detach()).sum() for one in g)
    hg = torch.autograd.grad(flow, parameters, materialize_grads=True)  # pyright: ignore
    return dict(zip(names, [one.detach() for one in g], strict=True)), dict(zip(names, hg, strict=True))


def build(kind: str) -> tuple[nn.Module, tuple[str, ...], list]:
    torch.manual_seed(0)
    model: Any = {"bert": lambda: bert(3), "gpt2": lambda: gpt2(3), "resnet": resnet}[kind]()
    batches = images() if kind == "resnet" else texts()
    return model, tuple(name for name, _ in model.base_model.named_parameters(prefix=model.base_model_prefix)), batches


@pytest.mark.parametrize("kind", ["bert", "gpt2", "resnet"])
def test_scores_equal_their_formulas(kind: str):
    model, names, batches = build(kind)
    model.train()
    held = model.get_parameter(names[0]).grad = torch.ones_like(model.get_parameter(names[0]))
    found = {score: dict(named(score, progress=False)(model, names, batches)) for score in FORMULAS}
    assert model.training and model.get_parameter(names[0]).grad is held and bool((held == 1).all())
    g, hg = plain(model, names, batches)
    for score, formula in FORMULAS.items():
        expected = {name: formula(model.get_parameter(name).detach(), g[name], hg[name]) for name in names}
        largest = max(float(x.abs().max()) for x in expected.values())
        assert largest > 1e-6
        for name in names:
            torch.testing.assert_close(found[score][name], expected[name], rtol=1e-3, atol=1e-4 * largest, msg=score)


@pytest.mark.parametrize("score", sorted(FORMULAS))
def test_the_shares_of_two_ranks_give_the_scores_of_one(score: str):
    """Sums are exchanged before a formula bends them: |a| + |b| is not |a + b|."""
    model, names, _ = build("bert")
    rows = examples(12, num_labels=3)
    alone = named(score)(model, names, [collate(rows)])
    ranks: list[Any] = [named(score)(model, names, [collate(rows[i::2])]) for i in range(2)]
    num_stages = 0
    while isinstance(ranks[0], Staged):
        sums = {name: ranks[0].sums[name] + ranks[1].sums[name] for name in names}
        ranks, num_stages = [rank.finish(sums) for rank in ranks], num_stages + 1
    assert num_stages == (2 if score == "grasp" else 1)
    largest = max(float(alone[name].abs().max()) for name in names)
    for name in names:
        assert torch.equal(ranks[0][name], ranks[1][name])
        torch.testing.assert_close(ranks[0][name], alone[name], rtol=1e-3, atol=1e-4 * largest)


def test_examples_without_a_label_do_not_count_and_frozen_tensors_score_zero():
    model, names, _ = build("bert")
    model.get_parameter(names[0]).requires_grad_(False)
    batch = collate(examples(6, num_labels=3))
    some = {**batch, "labels": torch.where(torch.arange(6) < 4, batch["labels"], -100)}
    none = {**batch, "labels": torch.full((6,), -100)}
    expected = named("gradient")(model, names, [{key: x[:4] for key, x in batch.items()}])
    found = named("gradient")(model, names, [some, none])
    assert not found[names[0]].any() and not model.get_parameter(names[0]).requires_grad
    for name in names[1:]:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)


def test_the_loss_is_the_one_that_is_trained():
    model, names, batches = build("bert")
    tripled = Examples(batches, lambda model, batch: 3 * model(**batch)["loss"], ("labels",))
    once, thrice = (named("gradient")(model, names, given) for given in (batches, tripled))
    for name in names:
        torch.testing.assert_close(thrice[name], 3 * once[name])


def test_synflow_equals_the_plain_formula_and_conserves_flow_where_the_paper_does():
    """Bias-free ReLU layers: every layer's scores have the same sum (Tanaka et al., 2020, theorem 1)."""
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in ((5, 7), (7, 6), (6, 3)))

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            for layer in self.layers:
                x = layer(x).relu()
            return {"loss": x.sum() * 1e6, "logits": x}

    torch.manual_seed(0)
    model = Plain()
    names = tuple(name for name, _ in model.named_parameters())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    found = named("synflow")(model, names, [{"x": torch.randn(4, 5), "labels": torch.zeros(4)}])
    first, second, third = (before[name].abs() for name in names)
    expected = second * (third.sum(0).unsqueeze(1) * (first @ torch.ones(5)).unsqueeze(0))
    torch.testing.assert_close(found[names[1]] / found[names[1]].max(), expected / expected.max())
    sums = [float(found[name].sum()) for name in names]
    assert sums == pytest.approx([sums[0]] * 3, rel=1e-4) and max(float(x.max()) for x in found.values()) == 1
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in model.named_parameters())


@pytest.mark.parametrize("make", [bert, roberta, gpt2, llama, resnet])
def test_synflow_follows_networks_of_all_kinds_without_their_data(make: Any):
    torch.manual_seed(0)
    model = make()
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape)  # biases are zero, and a zero has no flow
    names = tuple(name for name, _ in model.named_parameters())
    data = [{"pixel_values": torch.randn(2, 3, 16, 16)} if make is resnet else {}, {}]
    found = named("synflow")(model, names, data[:1])
    other = [{"pixel_values": torch.randn(2, 3, 16, 16)}] if make is resnet else ()
    again = named("synflow")(model, names, other)
    assert all(torch.equal(found[name], again[name]) for name in names)
    unused = ("word_embeddings", "wte", "embed_tokens", ".query.", ".key.", "q_proj", "k_proj")
    scored = {name for name in names if found[name].any()}
    assert scored == {name for name in names if not any(part in name for part in unused)}


def test_synflow_says_what_it_needs():
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(9, 9)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.table(ids)

    with pytest.raises(ValueError, match="choose another `score`$"):
        named("synflow")(Words(), ("table.weight",), [{"ids": torch.ones(2, 3, dtype=torch.long)}])


def test_names_are_those_of_the_flag_and_get_only_what_they_take():
    assert set(SCORES) == set(get_args(Salience))
    model = ImageNet()
    shown = [named("random", seed=seed, estimator="label")(model, ("scale",), ())["scale"] for seed in (1, 1, 2)]
    assert torch.equal(shown[0], shown[1]) and not torch.equal(shown[0], shown[2])
    with pytest.raises(ValueError, match="saliency"):
        named("salience")
