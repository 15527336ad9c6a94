"""Per-example gradients where layers, layouts and losses are not the usual ones: always those of single passes."""

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_scores import plain_fisher
from torch import Tensor, nn
from torch.nn import functional as F

from glue_sparse import FixedMask, SparseTrainer, fisher
from glue_sparse.benchmarks import architectures, sweep
from networks import bert, collate, examples
from rare import rarely
from training import arguments

USUAL = [
    "AlbertForSequenceClassification", "XLNetForSequenceClassification", "BartForSequenceClassification",
    "T5ForConditionalGeneration", "Gemma2ForCausalLM", "MixtralForCausalLM", "BertForMaskedLM",
    "SwinForImageClassification", "ConvNextForImageClassification", "nn.TransformerEncoder, tokens first", "nn.LSTM",
    "convolutional network", "shared weights",
]  # fmt: skip
"""Those of the sweep that try every rule and every way."""


@pytest.mark.parametrize("name", rarely(architectures.names(), USUAL))
def test_scores_training_and_diffs_of_an_architecture(name: str):
    assert not sweep.fisher_of(name).wrong
    found = sweep.training_of(name)
    assert found.moved == 0 and not found.still and not found.differs


class Net(nn.Module):
    """A table, what a test puts behind it, and a classifier."""

    def __init__(self, body: Callable[[Any, Tensor], Tensor], **layers: Any):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.classifier = nn.Embedding(60, 8), nn.Linear(8, 2)
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.body = body

    def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.classifier(self.body(self, self.table(input_ids)).mean(1))
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


class Scaled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(3 * input) * 0.5


def patched(layer: nn.Linear) -> nn.Linear:
    layer.forward = lambda x: F.linear(2 * x, layer.weight, layer.bias)  # pyright: ignore[reportAttributeAccessIssue]
    return layer


def hooked(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda module, args, output: output.mul(2))
    return layer


def relative(net: Any, x: Tensor) -> Tensor:
    """A table [tokens, tokens], whose first dimension is that of the examples when there are as many of them."""
    places = torch.arange(x.shape[1])
    bias = net.places((places[:, None] - places).clamp(-3, 3) + 3).squeeze(-1)
    return (x @ x.transpose(1, 2) / 4 + bias).softmax(-1) @ x


def buffered(net: Any, x: Tensor) -> Tensor:
    """An operation without a rule, on an argument of constants whose length may be the number of examples."""
    return torch.nn.functional.bilinear(x, x, net.three, None) * torch.lerp(net.bare, net.fixed, 0.5).mean()


def routed(net: Any, x: Tensor) -> Tensor:
    """Experts that see the tokens a router gave them, of whichever examples."""
    flat = x.flatten(0, 1)
    parts = torch.zeros_like(flat)
    for i, expert in enumerate((net.first, net.second)):
        chosen = (flat[:, 0] > 0) == bool(i)
        parts[chosen] = expert(flat[chosen])
    return parts.view_as(x)


def tokens_first(net: Any, x: Tensor) -> Tensor:
    return net.norm(net.layer(x.transpose(0, 1)).relu()).transpose(0, 1)


def sometimes(net: Any, x: Tensor) -> Tensor:
    return net.layer(x).tanh() if x.shape[1] > 6 else x


def linear() -> nn.Linear:
    return nn.Linear(8, 8)


BODIES: dict[str, Callable[[], Net]] = {
    "subclass": lambda: Net(lambda net, x: net.layer(x), layer=Scaled(8, 8)),
    "forward of an object": lambda: Net(lambda net, x: net.layer(x), layer=patched(linear())),
    "hook": lambda: Net(lambda net, x: net.layer(x), layer=hooked(linear())),
    "in place": lambda: Net(lambda net, x: net.layer(x).relu_(), layer=linear()),
    "in place behind the table": lambda: Net(lambda net, x: x.add_(1).tanh()),
    "read and called": lambda: Net(lambda net, x: net.layer(x) @ net.layer.weight + net.layer.bias, layer=linear()),
    "twice": lambda: Net(lambda net, x: net.layer(net.layer(x).tanh()), layer=linear()),
    "flattened": lambda: Net(lambda net, x: net.layer(x.flatten(0, 1)).view_as(x), layer=linear()),
    "tokens first": lambda: Net(tokens_first, layer=linear(), norm=nn.LayerNorm(8)),
    "only in some batches": lambda: Net(sometimes, layer=linear()),
    "relative positions": lambda: Net(relative, places=nn.Embedding(7, 1)),
    "constants": lambda: Net(
        buffered, three=nn.Parameter(torch.randn(8, 8, 8)), bare=nn.Parameter(torch.randn(5)), fixed=torch.rand(5)),
    "routed": lambda: Net(routed, first=linear(), second=linear()),
    "chunks of a weight": lambda: Net(
        lambda net, x: torch.stack([F.linear(x, part) for part in net.fused.chunk(3)]).sum(0),
        fused=nn.Parameter(torch.randn(24, 8))),
    "checkpointed": lambda: Net(
        lambda net, x: torch.utils.checkpoint.checkpoint(net.layer, x, use_reentrant=True), layer=linear()),  # pyright: ignore
    "normalised weight": lambda: Net(
        lambda net, x: net.layer(x), layer=nn.utils.parametrizations.weight_norm(linear())),
    "without a gradient": lambda: Net(lambda net, x: x + net.layer(x).detach(), layer=linear()),
}  # fmt: skip


def batches_of(*sizes: tuple[int, int]) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [{"input_ids": torch.randint(0, 50, size, generator=generator),
             "labels": torch.randint(0, 2, size[:1], generator=generator)} for size in sizes]  # fmt: skip


def check(model: nn.Module, batches: list[Any]) -> None:
    expected = plain_fisher(model, batches)
    found = fisher(model, tuple(expected), batches, progress=False)
    top = max(float(score.max()) for score in expected.values())
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-8 * top, msg=name)


@pytest.mark.parametrize("kind", BODIES)
def test_scores_are_those_of_single_passes_whatever_a_module_does(kind: str):
    # sizes that agree with each other, with the number of tokens and with lengths of parameters, and a batch of one
    check(BODIES[kind](), batches_of((4, 6), (5, 5), (5, 8), (8, 8), (1, 7)))


def test_a_way_that_gives_something_else_is_not_used_and_one_line_says_so(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        check(BODIES["routed"](), batches_of((4, 6), (5, 5)))
    (line,) = [record.message for record in caplog.records]
    assert "one example at a time" in line and "first.weight" in line and "table" not in line


class Recorded(Net):
    """A loss that a test chooses."""

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]):
        super().__init__(lambda net, x: x)
        self.loss = loss

    def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": self.loss(self.classifier(self.table(input_ids).mean(1)), labels)}


@pytest.mark.parametrize(
    "loss",
    [
        lambda logits, labels: F.cross_entropy(logits, labels, reduction="sum"),
        lambda logits, labels: F.cross_entropy(logits, labels, weight=torch.tensor([1.0, 9.0]), reduction="sum"),
        lambda logits, labels: F.cross_entropy(logits, labels, weight=torch.tensor([1.0, 9.0])),  # a weighted mean
        lambda logits, labels: F.cross_entropy(logits, labels).square(),
    ],
    ids=["sum", "weighted sum", "weighted mean", "not additive"],
)
def test_any_loss_is_that_of_each_example(loss: Any):
    check(Recorded(loss), batches_of((4, 6), (6, 5)))


def test_examples_with_no_label_count_as_absent():
    model, batch = bert(2), collate(examples(6))
    names = tuple(name for name, _ in model.named_parameters())
    kept = torch.tensor([0, 2, 5])
    labels = torch.full((6,), -100)
    labels[kept] = batch["labels"][kept]
    found = fisher(model, names, [{**batch, "labels": labels}], progress=False)
    expected = fisher(model, names, [{key: value[kept] for key, value in batch.items()}], progress=False)
    assert all(torch.equal(found[name], expected[name]) for name in names)
    nothing = fisher(model, names, [{**batch, "labels": torch.full((6,), -100)}], progress=False)
    assert not any(score.any() for score in nothing.values())


def test_tokens_without_labels_leave_an_example_out():
    torch.manual_seed(0)
    model = architectures.build("BertForMaskedLM")
    ids = torch.randint(5, 60, (4, 6))
    labels = torch.where(torch.rand(4, 6) < 0.4, ids, -100)
    labels[2] = -100
    kept = torch.tensor([0, 1, 3])
    whole, without = ([{"input_ids": ids[k], "labels": labels[k]}] for k in (torch.arange(4), kept))
    expected = plain_fisher(model, without)
    found = fisher(model, tuple(expected), whole, progress=False)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-8, msg=name)


def weighted(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
    summed = F.cross_entropy(outputs["logits"], labels, weight=torch.tensor([1.0, 50.0]), reduction="sum")
    return summed / (len(labels) if num_items_in_batch is None else num_items_in_batch)


class Overridden(SparseTrainer):
    def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        outputs = model(**inputs)
        loss = weighted(outputs, inputs["labels"])
        return (loss, outputs) if return_outputs else loss


def scores_of(kind: type[SparseTrainer] = SparseTrainer, model: nn.Module | None = None, **options: Any) -> dict:
    """What FISH computes at the start of a run."""
    found: dict[str, Tensor] = {}

    def score(model: nn.Module, names: tuple[str, ...], batches: Any) -> dict[str, Tensor]:
        found.update(fisher(model, names, batches, progress=False))
        return found

    told = {key: options.pop(key) for key in ("label_smoothing_factor",) if key in options}
    with tempfile.TemporaryDirectory() as folder:
        settings = arguments(Path(folder), remove_unused_columns=False, label_names=["labels"], **told)
    (batch,) = batches_of((8, 6))
    rows = [{"input_ids": ids, "labels": label} for ids, label in zip(*batch.values(), strict=True)]
    method = FixedMask(score, density=0.3, num_samples=8)
    kind(model or bert(), settings, method=method, train_dataset=rows, **options).choose()
    return found


def test_the_score_is_that_of_the_loss_which_is_trained():
    own, others = scores_of(), [scores_of(compute_loss_func=weighted), scores_of(Overridden)]
    name = "bert.pooler.dense.weight"
    for found in others:
        assert not torch.allclose(found[name], own[name], rtol=0.1)
    torch.testing.assert_close(others[0][name], others[1][name], rtol=1e-4, atol=1e-10)
    smooth = scores_of(label_smoothing_factor=0.3)

    class Smooth(SparseTrainer):
        def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
            return F.cross_entropy(model(**inputs)["logits"], inputs["labels"], label_smoothing=0.3)

    torch.testing.assert_close(smooth[name], scores_of(Smooth)[name], rtol=1e-4, atol=1e-10)


def test_a_model_that_returns_logits_alone_is_scored_by_its_trainers_loss():
    class Logits(Net):
        def forward(self, input_ids: Tensor) -> dict[str, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
            return {"logits": self.classifier(self.table(input_ids).mean(1))}

    found = scores_of(model=Logits(lambda net, x: x), compute_loss_func=weighted)
    assert found["table.weight"].any()


class Placed(Net):
    """Takes the positions of the tokens, which are the same for all examples, and a factor."""

    def __init__(self) -> None:
        super().__init__(lambda net, x: x)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input_ids: Tensor, labels: Tensor, places: Tensor, factor: Tensor
    ) -> dict[str, Tensor]:
        x = self.table(input_ids) * factor + self.table(places)
        return {"loss": F.cross_entropy(self.classifier(x.mean(1)), labels)}


@pytest.mark.parametrize("shape", [(-1,), (1, -1)])
def test_a_batch_may_begin_with_what_has_no_examples(shape: tuple[int, ...]):
    model, batches = Placed(), batches_of((4, 6), (5, 3), (1, 2))
    more = [{"factor": torch.tensor(2.0), "places": torch.arange(batch["input_ids"].shape[1]).view(shape), **batch}
            for batch in batches]  # fmt: skip
    check(model, more)


def test_gradients_stay_when_a_model_raises():
    def fail(gradient: Tensor) -> None:
        raise ArithmeticError

    model = Recorded(lambda logits, labels: F.cross_entropy(logits, labels))
    model.classifier.register_forward_hook(lambda module, args, output: output.register_hook(fail) and None)
    model.table.weight.grad = torch.ones_like(model.table.weight)
    names = tuple(name for name, _ in model.named_parameters())
    with pytest.raises(ArithmeticError):
        fisher(model, names, batches_of((4, 6)), progress=False)
    assert (model.table.weight.grad == 1).all() and model.classifier.weight.grad is None
