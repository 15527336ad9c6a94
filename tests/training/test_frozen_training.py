"""What the user froze stays as it is, bit for bit and with its flag, whatever trains around it."""

from collections.abc import Callable
from itertools import cycle, product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from every_method import METHODS, scored
from glue_sparse import RIGL, DropGrow, FixedMask, OneShot, SparseDiff, SparseTrainer, detach, noise
from glue_sparse.arguments.method import MethodArguments
from glue_sparse.core.params import head_names
from glue_sparse.methods.base import SparseMethod
from glue_sparse.methods.builders import bitfit
from glue_sparse.methods.gates.diff_gates import DiffGates
from glue_sparse.methods.leaky_mask import LeakyMask
from glue_sparse.methods.moving.alternate import Alternate
from networks import bert, gpt2
from rare import rarely
from training import trainer

KINDS: dict[str, Callable[[str], bool]] = {
    "embeddings": lambda name: "embeddings" in name,
    "lower layers": lambda name: "embeddings" in name or ".layer.0." in name,
    "head": lambda name: name.startswith("classifier"),
    "biases of a layer": lambda name: ".layer.1." in name and name.endswith("bias"),
    "matrices of a layer and half the head": lambda name: name == "classifier.bias"
    or (".layer.1." in name and name.endswith("dense.weight")),
}


def freeze(model: nn.Module, chosen: Callable[[str], bool]) -> dict[str, Tensor]:
    """Freeze parameters by their names; gives copies of them."""
    frozen = {name: p for name, p in model.named_parameters() if chosen(name)}
    for parameter in frozen.values():
        parameter.requires_grad_(False)
    assert frozen
    return {name: parameter.detach().clone() for name, parameter in frozen.items()}


def assert_as_before(model: nn.Module, old: dict[str, Tensor]) -> None:
    changed = [name for name, tensor in old.items() if not torch.equal(model.get_parameter(name), tensor)]
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    assert not changed
    assert {name for name, flag in flags.items() if not flag} == old.keys()


EACH = list(zip(METHODS, cycle(KINDS)))  # noqa: B905  # every method with one kind, every kind with some methods


@pytest.mark.parametrize(("method", "kind"), rarely(product(METHODS, KINDS), EACH))
def test_frozen_tensors_keep_bits_and_flags(tmp_path: Path, method: str, kind: str):
    model = bert()
    old = freeze(model, KINDS[kind])
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    run = trainer(tmp_path, model, METHODS[method](), max_steps=5, logging_strategy="no")
    run.train()
    diff = run.sparse_diff()
    assert not old.keys() & diff.indices.keys()
    assert (old.keys() & diff.whole.keys()) == (old.keys() & set(head_names(model)))
    detach(model)
    assert_as_before(model, old)
    moved = [name for name, p in model.named_parameters() if not torch.equal(p, start[name])]
    assert moved, "something has to train beside it"
    # the diff gives this model on a base that has another head
    other = bert(seed=0)
    nn.init.zeros_(other.classifier.weight)
    if diff.info.inactive == "frozen" or not kind.startswith("matrices"):
        diff.merge_into(other)
        for name, parameter in model.named_parameters():
            assert torch.equal(other.get_parameter(name), parameter), name


def test_a_tied_tensor_that_is_frozen_stays_so_everywhere(tmp_path: Path):
    for make in (scored, lambda: DropGrow(RIGL, density=0.3, tensors=("*",)), DiffGates):
        model = gpt2()
        model.extra = nn.Linear(16, 50, bias=False)
        model.extra.weight = model.transformer.wte.weight
        old = freeze(model, lambda name: "wte" in name)
        trainer(tmp_path, model, make(), max_steps=2, logging_strategy="no").train()
        detach(model)
        assert_as_before(model, old)
        assert model.extra.weight is model.transformer.wte.weight


def test_density_counts_all_entries_and_a_frozen_head_costs_nothing(tmp_path: Path, caplog: Any):
    model = bert()
    total = sum(p.numel() for p in model.parameters())
    old = freeze(model, lambda name: "embeddings" in name or name.startswith("classifier"))
    run = trainer(tmp_path, model, FixedMask(noise, density=0.05), max_steps=1, logging_strategy="no")
    run.train()
    assert run.cost is not None
    assert (run.cost.num_entries, run.cost.trainable) == (total, int(0.05 * total))
    lines = [record.message for record in caplog.records if "frozen" in record.message]
    assert len(lines) == 1
    assert f"{sum(t.numel() for t in old.values()):,} entries in {len(old)} tensors" in lines[0]


def test_layers_keep_their_numbers_when_lower_ones_are_frozen(tmp_path: Path):
    """`fix_layer` 2 is the second block, frozen embeddings and first block or not."""
    model = bert()
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    freeze(model, KINDS["lower layers"])
    trainer(tmp_path, model, DiffGates(fix_layer=[2]), max_steps=2, logging_strategy="no").train()
    detach(model)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, start[name])}
    assert moved
    assert not any("layer.1." in name for name in moved)


def test_what_cannot_train_says_so(tmp_path: Path):
    def start(chosen: Callable[[str], bool], method: SparseMethod) -> None:
        model = bert()
        freeze(model, chosen)
        trainer(tmp_path, model, method, max_steps=1, logging_strategy="no").train()

    def all_but_head(name: str) -> bool:
        return not name.startswith("classifier")

    with pytest.raises(ValueError, match="every parameter of this model is frozen"):
        start(lambda name: True, scored())
    for method in (scored(), DiffGates(), bitfit(MethodArguments(), 0)):
        with pytest.raises(ValueError, match="every tensor outside the head is frozen"):
            start(all_but_head, method)
    for method in (OneShot(), DropGrow(RIGL), Alternate(2)):
        with pytest.raises(ValueError, match="frozen: call requires_grad_"):
            start(all_but_head, method)
    start(all_but_head, FixedMask(masks={}))  # a linear probe
    with pytest.raises(ValueError, match="every bias of this model is frozen"):
        start(lambda name: name.endswith("bias"), bitfit(MethodArguments(), 0))
    with pytest.raises(ValueError, match="every tensor that `tensors` names is frozen"):
        start(KINDS["embeddings"], scored(tensors=("*embeddings*",)))
    with pytest.raises(ValueError, match="`density` 0.9 asks for"):
        start(KINDS["lower layers"], FixedMask(noise, density=0.9))
    mask = {"bert.pooler.dense.weight": torch.ones(16, 16, dtype=torch.bool)}
    for method in (FixedMask(masks=mask), LeakyMask(FixedMask(masks=mask))):
        with pytest.raises(ValueError, match="asks for active entries, but that tensor is frozen"):
            start(lambda name: "pooler" in name, method)


@pytest.mark.parametrize(
    "method",
    rarely(["fish", "refreshed", "one_shot", "rigl", "alternate", "gates", "leaky"], {"fish", "rigl", "gates"}),
)
def test_a_resumed_run_with_frozen_tensors_is_the_uninterrupted_one(tmp_path: Path, method: str):
    def run(folder: str) -> tuple[nn.Module, SparseTrainer]:
        model = bert()
        freeze(model, lambda name: KINDS["lower layers"](name) or name == "classifier.bias")
        options: dict[str, Any] = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6}
        return model, trainer(tmp_path / folder, model, METHODS[method](), logging_strategy="no", **options)

    (first, whole), (second, resumed) = run("a"), run("b")
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-3"))
    for model in (first, second):
        detach(model)
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters(), strict=True))
    assert [p.requires_grad for p in first.parameters()] == [p.requires_grad for p in second.parameters()]


def test_training_on_from_a_diff_respects_what_is_frozen(tmp_path: Path):
    made = {}
    for name in ("fish", "one_shot"):
        model = bert()
        freeze(model, KINDS["embeddings"])
        run = trainer(tmp_path / name, model, METHODS[name](), max_steps=2, logging_strategy="no")
        run.train()
        run.sparse_diff().save_pretrained(tmp_path / name)
        made[name] = SparseDiff.from_pretrained(tmp_path / name)

    def train_on(name: str, chosen: Callable[[str], bool] | None) -> tuple[nn.Module, dict[str, Tensor]]:
        model = bert()
        old = freeze(model, chosen) if chosen else {}
        trainer(tmp_path, model, FixedMask(start=made[name]), max_steps=2, logging_strategy="no").train()
        detach(model)
        return model, old

    for name in made:
        assert_as_before(*train_on(name, KINDS["embeddings"]))
    base = bert()
    model, _ = train_on("fish", None)  # what was frozen then has no entries now either
    for name in filter(KINDS["embeddings"], dict(model.named_parameters())):
        assert torch.equal(model.get_parameter(name), base.get_parameter(name))
    with pytest.raises(ValueError, match="was frozen when this diff was trained"):
        train_on("one_shot", None)
    with pytest.raises(ValueError, match="but that tensor is frozen"):
        train_on("fish", KINDS["lower layers"])
    with pytest.raises(ValueError, match="is frozen, and this diff holds another one"):
        train_on("one_shot", lambda name: KINDS["embeddings"](name) or "pooler.dense.bias" in name)
