"""An optimizer step from micro-batches, on one rank or two, is the step of one large batch, whatever the loss does."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertForQuestionAnswering, ElectraConfig, ElectraForPreTraining

import merging
from forked import run_ranks
from glue_sparse import FixedMask, SparseTrainer
from glue_sparse.benchmarks import accumulation
from glue_sparse.benchmarks.accumulation import CASES, SHAPES, built, distance, examples, large_step, step
from glue_sparse.training.means import Items, find_items
from glue_sparse.training.windows import shares
from rare import rarely

HELPERS = Path(__file__).parents[1] / "helpers"
NEAR = 1e-6
EACH = [(shape,) for shape in SHAPES]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("shape",), rarely(EACH, EACH[::2]))
def test_one_rank(name: str, shape: tuple[int, int]):
    base, data = built(CASES[name]), examples(CASES[name], 8)
    assert distance(step("ours", base, data, shape), large_step(base, data)) < NEAR


FEW = (2, ("BERT classifier", "GPT-2"))


@pytest.mark.parametrize(("window", "names"), rarely([FEW, *((i, (*CASES,)) for i in range(len(SHAPES)))], [FEW]))
def test_two_ranks(tmp_path: Path, window: int, names: tuple[str, ...]):
    run_ranks(HELPERS / "accumulating.py", str(tmp_path), str(window), *names, count=2)
    for rank in (0, 1):
        found = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert len(found) == len(names)
        assert max(found.values()) < NEAR, found


@pytest.mark.parametrize("name", ["BERT classifier", "BERT masked LM", "GPT-2"])
@pytest.mark.parametrize("shape", [(2, 8), (4, 8), (3, 4)])
def test_a_window_that_the_data_do_not_fill(name: str, shape: tuple[int, int]):
    """Seven examples: the last micro-batch is smaller, and the window has fewer of them."""
    base, data = built(CASES[name]), examples(CASES[name], 7)
    assert distance(step("ours", base, data, shape), large_step(base, data)) < NEAR


class Net(nn.Module):
    """A network without a name that anyone knows, with a loss of each kind."""

    def __init__(self, kind: str, shifts: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.shifts = kind, shifts
        self.emb, self.out = nn.Embedding(accumulation.VOCABULARY, 8), nn.Linear(8, accumulation.VOCABULARY)

    def forward(self, input_ids: Tensor, labels: Tensor | None = None, **kwargs: Any) -> dict[str, Tensor]:
        logits = self.out(self.emb(input_ids))
        if labels is None:
            return {"logits": logits}
        if self.shifts:
            logits, labels = logits[:, :-1], labels[:, 1:]
        each = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        counts = labels.ne(-100)
        if self.kind == "per example":
            return {"loss": (each.sum(1) / counts.sum(1).clamp(min=1)).mean(), "logits": logits}
        number = kwargs.get("num_items_in_batch") if self.kind == "told" else None
        return {"loss": each.sum() / (counts.sum() if number is None else number), "logits": logits}


@pytest.mark.parametrize("shifts", [False, True])
@pytest.mark.parametrize(("kind", "mean"), [("told", None), ("deaf", None), ("per example", "examples")])
@pytest.mark.parametrize("shape", SHAPES)
def test_losses_of_each_kind(kind: str, mean: str | None, shifts: bool, shape: tuple[int, int]):
    base, data = Net(kind, shifts), examples(CASES["GPT-2"], 8)
    for index, example in enumerate(data[:-1]):
        example["labels"][0] = 3 if index % 3 else -100  # a label that a loss which shifts never asks for
    batch = {k: torch.stack([e[k] for e in data]) for k in data[0]}
    state = torch.get_rng_state()
    found = find_items(lambda b: base(**b)["loss"], base, [batch])
    assert found == (Items("labels", int(shifts)) if mean is None else Items(mean), True)
    assert torch.equal(torch.get_rng_state(), state) and base.training
    assert distance(step("ours", base, data, shape), large_step(base, data)) < NEAR


class Uncommon(nn.Module):
    """Losses of kinds that transformers' own networks seldom have, some of them in a tuple."""

    def __init__(self, kind: str, ignored: int = -100):
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.ignored = kind, ignored
        self.emb, self.out = nn.Embedding(accumulation.VOCABULARY, 8), nn.Linear(8, accumulation.VOCABULARY)

    def forward(self, input_ids: Tensor, labels: Tensor, attention_mask: Tensor | None = None) -> Any:
        logits, reduction = self.out(self.emb(input_ids)), "sum" if self.kind == "sum" else "mean"
        if self.kind == "hinge":
            return F.relu(1 - labels * logits[:, 0, 0]).mean(), logits
        if self.kind == "classes":
            weights = torch.ones(accumulation.VOCABULARY).index_fill(0, torch.tensor([1]), 5.0)
            return {"loss": F.cross_entropy(logits.mean(1), labels, weight=weights)}
        if labels.dim() == 1:
            return F.cross_entropy(logits.mean(1), labels, reduction=reduction, ignore_index=self.ignored), logits
        if self.kind == "attended" and attention_mask is not None:
            logits, labels = logits[attention_mask.bool()], labels[attention_mask.bool()]
        loss = F.cross_entropy(logits.reshape(-1, accumulation.VOCABULARY), labels.reshape(-1), reduction=reduction,
                               ignore_index=self.ignored)  # fmt: skip
        return {"loss": loss, "logits": logits}


def padded(data: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of different lengths; every token has a label."""
    lengths = (torch.arange(len(data)) * 5 % 9 + 3).tolist()
    mask = [torch.arange(accumulation.LENGTH).lt(length).long() for length in lengths]
    return [{**e, "labels": e["input_ids"], "attention_mask": each} for e, each in zip(data, mask, strict=True)]


def unlike(data: list[dict[str, Any]], label: int) -> list[dict[str, Any]]:
    """With another label that does not count, that of a token or of a whole example."""
    if isinstance(data[0]["labels"], int):
        return [{**e, "labels": label if i in (0, 3) else e["labels"]} for i, e in enumerate(data)]
    return [{**e, "labels": torch.where(e["labels"] == -100, label, e["labels"])} for e in data]


TOKENS, CLASSES = (examples(CASES[name], 8) for name in ("GPT-2", "BERT classifier"))
UNCOMMON = {
    "sum of tokens": ("sum", -100, TOKENS), "sum of examples": ("sum", -100, CLASSES),
    "-1 does not count": ("mean", -1, unlike(TOKENS, -1)), "0 does not count": ("mean", 0, unlike(TOKENS, 0)),
    "-1 is no class": ("mean", -1, unlike(CLASSES, -1)),
    "-1 is a class": ("hinge", -100, [{**e, "labels": -1 if i % 3 else 1} for i, e in enumerate(CLASSES)]),
    "attended tokens": ("attended", -100, padded(TOKENS)),
}  # fmt: skip


def step_of_one_batch(loss: Any, base: nn.Module, data: list[dict[str, Any]]) -> Tensor:
    base.zero_grad()
    loss({k: torch.stack([torch.as_tensor(e[k]) for e in data]) for k in data[0]}).backward()
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in base.parameters()]
    base.zero_grad()
    return -accumulation.RATE * torch.cat([gradient.flatten() for gradient in found])


@pytest.mark.parametrize("name", UNCOMMON)
@pytest.mark.parametrize("shape", SHAPES)
def test_losses_that_are_no_mean_over_labels(name: str, shape: tuple[int, int]):
    kind, ignored, data = UNCOMMON[name]
    base = Uncommon(kind, ignored)

    def loss(batch: dict[str, Tensor]) -> Tensor:
        found = base(**batch)
        return found["loss"] if isinstance(found, dict) else found[0]

    assert distance(step("ours", base, data, shape), step_of_one_batch(loss, base, data)) < NEAR


@pytest.mark.parametrize("shape", SHAPES)
def test_electra_counts_attended_tokens(shape: tuple[int, int]):
    torch.manual_seed(0)
    base = ElectraForPreTraining(ElectraConfig(**accumulation.SMALL, embedding_size=8))
    data = [{**e, "labels": e["labels"] % 2} for e in padded(TOKENS)]
    assert distance(step("ours", base, data, shape), large_step(base, data)) < NEAR


def test_a_loss_of_classes_with_weights_is_told(caplog: pytest.LogCaptureFixture):
    batch = {k: torch.stack([torch.as_tensor(e[k]) for e in CLASSES]) for k in CLASSES[0]}
    base = Uncommon("classes")
    find_items(lambda b: base(**b)["loss"], base, [batch])
    assert "not exactly those of one large batch" in caplog.text
    caplog.clear()
    base = built(CASES["GPT-2"])
    find_items(lambda b: base(**b)["loss"], base, [{k: torch.stack([e[k] for e in TOKENS]) for k in TOKENS[0]}])
    assert "large batch" not in caplog.text  # transformers warns of GPT-2 itself, once in a process


def test_data_without_labels_are_not_the_last_word():
    base, nothing = Net("deaf", shifts=True), {**TOKENS[0], "labels": torch.full((accumulation.LENGTH,), -100)}
    batches = [{k: v[None] for k, v in each.items()} for each in (nothing, TOKENS[0])]
    assert find_items(lambda b: base(**b)["loss"], base, batches[:1]) == (Items("labels"), False)
    assert find_items(lambda b: base(**b)["loss"], base, batches) == (Items("labels", 1), True)


def test_a_sum_counts_for_every_rank():
    assert shares([{}, {}], Items("sum"), torch.device("cpu"), num_ranks=3).tolist() == [6.0, 6.0]


def deaf_mean(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    return F.cross_entropy(outputs["logits"].flatten(0, -2), labels.flatten())


def deaf_sum(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    return F.cross_entropy(outputs["logits"].flatten(0, -2), labels.flatten(), reduction="sum")


@pytest.mark.parametrize("name", ["BERT classifier", "BERT masked LM"])
@pytest.mark.parametrize(("shape",), rarely(EACH, EACH[:1]))
@pytest.mark.parametrize("function", [deaf_mean, deaf_sum])
def test_a_loss_function_that_does_not_use_the_number(name: str, shape: tuple[int, int], function: Any):
    base, data = built(CASES[name]), examples(CASES[name], 8)
    right = step_of_one_batch(lambda b: function(base(**b), b["labels"]), base, data)
    assert distance(step("ours", base, data, shape, compute_loss_func=function), right) < NEAR


def test_labels_that_are_not_tokens():
    torch.manual_seed(0)
    base = BertForQuestionAnswering(BertConfig(**accumulation.SMALL))
    data = [{"input_ids": e["input_ids"], "start_positions": i, "end_positions": i + 2}
            for i, e in enumerate(examples(CASES["GPT-2"], 7))]  # fmt: skip
    assert distance(step("ours", base, data, (2, 8)), large_step(base, data)) < NEAR
    for i in (0, 3):  # an answer that was cut off
        data[i]["start_positions"] = data[i]["end_positions"] = accumulation.LENGTH + 5
    assert distance(step("ours", base, data, (1, 8)), large_step(base, data)) < NEAR


def summed(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    logits = outputs["logits"][:, :-1].flatten(0, 1)
    return F.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum") / num_items_in_batch


class Own(SparseTrainer):
    """A user's own loss, that uses the number of items or is a mean."""

    listens = True

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        outputs, labels = model(input_ids=inputs["input_ids"]), inputs["labels"]
        number = kwargs["num_items_in_batch"] if self.listens else labels[:, 1:].ne(-100).sum()
        loss = summed(outputs, labels, number)
        return (loss, outputs) if return_outputs else loss


class OwnMean(Own):
    listens = False


@pytest.mark.parametrize(("shape",), rarely(EACH, EACH[1:3]))
@pytest.mark.parametrize("kind", [None, Own, OwnMean])
def test_a_loss_of_the_user(monkeypatch: pytest.MonkeyPatch, kind: type[SparseTrainer] | None, shape: tuple[int, int]):
    case = CASES["GPT-2"]
    base, data = built(case), examples(case, 9)[:8]
    if kind is OwnMean:  # Trainer divides such a loss by the number of micro-batches, so it is right for equal ones
        data = [{**e, "labels": e["input_ids"]} for e in data]
    if kind is not None:
        monkeypatch.setattr(accumulation, "SparseTrainer", kind)
    options: dict[str, Any] = {} if kind else {"compute_loss_func": summed}
    assert distance(step("ours", base, data, shape, **options), large_step(base, data)) < NEAR


@pytest.mark.parametrize(("shape",), rarely(EACH, EACH[-1:]))
@pytest.mark.parametrize("options", [{}, {"compute_loss_func": summed}])
def test_a_penalty_counts_once_per_step(shape: tuple[int, int], options: dict[str, Any]):
    class Decay(FixedMask):
        def penalty(self, model: nn.Module) -> Tensor:
            return 0.5 * torch.stack([(p**2).sum() for p in model.parameters()]).sum()

    case = CASES["GPT-2"]
    base, data = built(case), examples(case, 8)
    right = large_step(base, data) - accumulation.RATE * torch.cat([p.detach().flatten() for p in base.parameters()])
    found = step("ours", base, data, shape, method=Decay(masks={}), **options)
    assert distance(found, right) < NEAR


@pytest.mark.parametrize("name", ["BERT masked LM", "GPT-2"])
def test_workers_that_merge(tmp_path: Path, name: str):
    """Each worker's step is that of one batch as well; plain SGD, so that the change is the gradient."""
    found, case = [], CASES[name]
    base = built(case)
    for batch, parts in SHAPES:
        options = {
            "per_device_train_batch_size": batch, "gradient_accumulation_steps": parts, "max_steps": 1, "optim": "sgd",
            "learning_rate": accumulation.RATE, "lr_scheduler_type": "constant", "max_grad_norm": 0.0,
            "weight_decay": 0.0,
        }  # fmt: skip
        model = built(case)
        merged = merging.build(
            tmp_path / f"{batch}", "dense", model, examples(case, 8), options, merge_every=1, merge_rule="mean"
        )
        merged.run()
        pairs = zip(model.parameters(), base.parameters(), strict=True)
        found.append(torch.cat([(new - old).detach().flatten() for new, old in pairs]))
    right = large_step(base, examples(case, 8))
    assert max(distance(each, right) for each in found) < NEAR


def test_label_smoothing():
    case, found = CASES["BERT masked LM"], []
    for shape in SHAPES:
        found.append(step("ours", built(case), examples(case, 8), shape, smoothing=0.1))
    assert max(distance(each, found[-1]) for each in found[:-1]) < NEAR
    assert distance(found[-1], large_step(built(case), examples(case, 8))) > 1e-3
