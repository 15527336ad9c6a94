"""Losses of a batch that are, or are not, a mean over its examples: the score is that of each example's own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_scores import plain_fisher
from torch import Tensor, nn
from torch.nn import functional as F

from glue_sparse import fisher
from glue_sparse.core.batches import example
from glue_sparse.scores.losses import Owners, mean_by_example
from networks import bert

CLASSES = torch.tensor([1.0, 5.0, 20.0])
Loss = Callable[..., Tensor]


class Net(nn.Module):
    """Logits of each token, or of each example, and a loss that a test chooses."""

    def __init__(self, loss: Loss, by_token: bool):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.classifier = nn.Embedding(60, 8), nn.Linear(8, 3)
        self.loss, self.by_token = loss, by_token

    def forward(self, input_ids: Tensor, labels: Tensor, **more: Tensor) -> dict[str, Tensor]:
        logits = self.classifier(self.table(input_ids).tanh())
        return {"loss": self.loss(logits if self.by_token else logits.mean(1), labels, **more)}


def rows(*labels: int | list[int], **more: list[float]) -> dict[str, Tensor]:
    ids = torch.randint(0, 50, (len(labels), 5), generator=torch.Generator().manual_seed(len(labels)))
    return {"input_ids": ids, "labels": torch.tensor(labels), **{k: torch.tensor(x) for k, x in more.items()}}


def check(model: nn.Module, batches: list[dict[str, Tensor]]) -> None:
    expected = plain_fisher(model, batches)
    found = fisher(model, tuple(expected), batches, progress=False)
    assert any(score.any() for score in expected.values())
    for name, score in expected.items():
        torch.testing.assert_close(found[name], score, rtol=1e-4, atol=1e-9, msg=name)


def weighted(logits: Tensor, labels: Tensor) -> Tensor:
    losses = F.cross_entropy(logits, labels, reduction="none")
    return (losses * CLASSES[labels]).sum() / CLASSES[labels].sum()


LOSSES: dict[str, Loss] = {
    "weighted": lambda logits, labels: F.cross_entropy(logits, labels, weight=CLASSES),
    "weighted and smoothed": lambda logits, labels: F.cross_entropy(
        logits, labels, weight=CLASSES, label_smoothing=0.2),
    "weighted likelihood": lambda logits, labels: F.nll_loss(logits.log_softmax(-1), labels, weight=CLASSES),
    "weighted by hand": weighted,
    "sum": lambda logits, labels: F.cross_entropy(logits, labels, reduction="sum"),
    "mean times examples": lambda logits, labels: F.cross_entropy(logits, labels) * len(labels),
    "over examples but one": lambda logits, labels: F.cross_entropy(
        logits, labels, reduction="sum") / max(len(labels) - 1, 1),
    "probabilities": lambda logits, labels: F.cross_entropy(logits, F.one_hot(labels, 3) * 0.7 + 0.1),
    "squares": lambda logits, labels: F.mse_loss(logits, F.one_hot(labels, 3).float()) / 3,
    "two": lambda logits, labels: (F.cross_entropy(logits, labels) + weighted(logits, labels)) / 2,
}  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES.values(), ids=list(LOSSES))
def test_a_first_pair_of_one_class_proves_nothing(loss: Loss):
    check(Net(loss, False), [rows(1, 1, 2, 0), rows(1, 1), rows(2, 2, 0, 1, 0)])


def test_weights_of_examples():
    def loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        return (F.cross_entropy(logits, labels, reduction="none") * weights).sum() / weights.sum()

    batches = [rows(0, 1, 2, weights=[1.0, 1.0, 1.0]), rows(1, 1, 2, 0, weights=[1.0, 1.0, 5.0, 9.0])]
    check(Net(loss, False), batches)


def test_a_first_pair_without_a_loss_proves_nothing():
    model = Net(lambda logits, labels: F.relu(logits.gather(1, labels[:, None]) - 0.1).sum(), False)
    batch = rows(0, 0, 0, 0, 0, 0)
    logits = model.classifier(model.table(batch["input_ids"]).tanh().mean(1))
    batch["labels"] = torch.cat([logits[:2].argmin(1), logits[2:].argmax(1)])
    check(model, [batch, rows(0, 1, 2)])


def other_number(loss: Loss) -> Loss:
    """With another number than -100 for what has no label."""
    return lambda logits, labels: loss(logits, labels.masked_fill(labels == -100, 7), ignore_index=7)


def flat(logits: Tensor, labels: Tensor, **options: Any) -> Tensor:
    return F.cross_entropy(logits.reshape(-1, 3), labels.reshape(-1), **options)


def chosen(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits[labels != -100], labels[labels != -100])


def shifted(logits: Tensor, labels: Tensor) -> Tensor:
    return flat(logits, F.pad(labels, (0, 1), value=-100)[..., 1:])


TOKENS: dict[str, Loss] = {
    "flat": flat,
    "weighted": lambda logits, labels: flat(logits, labels, weight=CLASSES),
    "smoothed": lambda logits, labels: flat(logits, labels, label_smoothing=0.2),
    "another number": other_number(flat),
    "classes second": lambda logits, labels: F.cross_entropy(logits.transpose(1, 2), labels),
    "tokens first": lambda logits, labels: flat(logits.transpose(0, 1), labels.t()),
    "likelihood": lambda logits, labels: F.nll_loss(logits.log_softmax(-1).flatten(0, 1), labels.flatten()),
    "labelled tokens": chosen,
    "shifted": shifted,
    "two kinds": lambda logits, labels: flat(logits, labels) + 2 * flat(logits, labels, weight=CLASSES),
}
FULL, HALF = [1, 0, 2, 1, 0], [-100, 2, -100, 2, 1]


@pytest.mark.parametrize("loss", TOKENS.values(), ids=list(TOKENS))
def test_an_example_has_the_mean_over_its_own_labels(loss: Loss):
    sparse = [-100, -100, 0, -100, -100]
    batches = [rows(FULL, FULL, HALF, sparse), rows(HALF, [-100] * 5, FULL, sparse, FULL), rows(FULL, HALF)]
    kept = [{k: v[(b["labels"] != -100).any(1)] for k, v in b.items()} for b in batches]
    model = Net(loss, True)
    expected = plain_fisher(model, kept)
    found = fisher(model, tuple(expected), batches, progress=False)
    for name, score in expected.items():
        torch.testing.assert_close(found[name], score, rtol=1e-4, atol=1e-9, msg=name)


def test_positions_that_are_out_of_range_count_as_no_label():
    class Spans(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.table, self.ends = nn.Embedding(60, 8), nn.Linear(8, 2)

        def forward(self, input_ids: Tensor, start_positions: Tensor, end_positions: Tensor) -> dict[str, Tensor]:
            both = self.ends(self.table(input_ids).tanh()).unbind(-1)
            losses = [F.cross_entropy(logits, places.clamp(0, 5), ignore_index=5)
                      for logits, places in zip(both, (start_positions, end_positions), strict=True)]  # fmt: skip
            return {"loss": (losses[0] + losses[1]) / 2}

    model = Spans()
    spans = [{"input_ids": rows(*[0] * n)["input_ids"], "start_positions": torch.tensor([9, 2, 1, 3, 9][:n]),
              "end_positions": torch.tensor([4, 2, 8, 3, 9][:n])} for n in (5, 4)]  # fmt: skip
    names = tuple(name for name, _ in model.named_parameters())
    found = fisher(model, names, spans, progress=False)
    expected = {name: torch.zeros_like(score) for name, score in found.items()}
    for batch in spans:
        for i in range(len(batch["input_ids"])):
            one = example(batch, i)
            both = model.ends(model.table(one["input_ids"]).tanh()).unbind(-1)
            places = one["start_positions"], one["end_positions"]
            inside = [(x, place) for x, place in zip(both, places, strict=True) if place < 5]
            for name in names if inside else ():
                loss = torch.stack([F.cross_entropy(x, place) for x, place in inside]).sum() / 2
                expected[name] += torch.autograd.grad(loss, model.get_parameter(name), retain_graph=True)[0] ** 2
    for name in names:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-9, msg=name)


def test_usual_losses_are_proven_and_need_no_pass_for_each_example():
    model, calls = bert(3).eval(), []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    batches = [rows(0, 1, 2, 2, 1), rows(0, 0, 1, 2)]
    fisher(model, tuple(name for name, _ in model.named_parameters()), batches, progress=False)
    assert len(calls) == 5  # two examples and the two together, then the batches


def test_owners_follow_labels_wherever_they_go():
    labels = torch.arange(6).view(3, 2)
    owners = Owners({"labels": labels}, 3)
    turned = labels.t()
    owners.note(Tensor.t, (labels,), {}, turned)
    flattened = turned.reshape(-1)
    owners.note(Tensor.reshape, (turned, -1), {}, flattened)
    mask = torch.tensor([True, False, True, True, False, True])
    some = flattened[mask]
    owners.note(Tensor.__getitem__, (flattened, mask), {}, some)
    found = owners.of(some)
    assert found is not None and torch.equal(found, some // 2)
    assert owners.of(torch.arange(6)) is None
    assert mean_by_example(F.cross_entropy, (torch.randn(6, 4), torch.zeros(6).long()), {}, 3, owners.of) is None
