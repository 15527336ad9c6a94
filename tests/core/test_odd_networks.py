"""Networks, data and optimizers out of the ordinary, whose active entries move."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import ResNetConfig, ResNetForImageClassification

from glue_sparse import RIGL, SET, SNFS, DropGrow, Rule, SparseOptimizer, SparseTrainer, detach, sparsify_model
from glue_sparse.core.active import active_tensors, current_masks
from glue_sparse.core.parametrization import current_tensors
from glue_sparse.core.params import sparsifiable
from glue_sparse.methods.moving.drop_grow import with_changes
from networks import bert
from plain_loop import batch, conv_net, loss_of, optimizer_of, sparse, train
from rte_runs import go
from training import ROWS, arguments, trainer
from watching import method


class Numbered(nn.Module):
    """Convolutions and a linear layer in numbered places, as many vision models have them."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(4, 20))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def test_numbered_linear_layers_do_not_hide_the_others():
    assert list(sparsifiable(Numbered())) == ["features.0.weight", "features.2.weight", "classifier.1.weight"]
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
    names = list(sparsifiable(encoder))
    assert len(names) == 8 and "layers.0.self_attn.in_proj_weight" in names
    small = ResNetForImageClassification(ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1]))
    convolutions = [n for n, p in small.named_parameters() if p.dim() == 4]
    assert [n for n in sparsifiable(small) if "classifier" not in n] == convolutions
    assert len(sparsifiable(bert())) == 12 and all(axis == -1 for axis in sparsifiable(bert()).values())


def test_frozen_tensors_stay_frozen():
    model = conv_net()
    model[0].requires_grad_(False)
    old = model[0].weight.clone()  # type: ignore[union-attr]
    sparsify_model(model, 0.5)
    assert [name for name, _ in active_tensors(model)] == ["3.weight", "6.weight"]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    steps = SparseOptimizer(optimizer, model, with_changes(RIGL, every=2), num_steps=20)
    for step in range(8):
        train(model, steps, step)
    detach(model)
    assert torch.equal(model[0].weight, old) and not model[0].weight.requires_grad  # type: ignore[union-attr]


@pytest.mark.parametrize("regrown", ["keep", "reset"])
@pytest.mark.parametrize("rule", [SNFS, SET], ids=["snfs", "set"])
def test_a_dense_tensor_stays_as_it_is(rule: Rule, regrown: Any):
    model, steps = sparse(with_changes(rule, every=2, regrown=regrown), distribution="first_dense")
    for step in range(12):
        train(model, steps, step)
    counts = {name: entries.num_active for name, entries in active_tensors(model)}
    assert counts["0.weight"] == 216 and (current_tensors(model)["0.weight"] != 0).all()
    assert sum(counts.values()) == 216 + round(0.2 * 432) + round(0.2 * 480)


def test_accumulated_gradients_count_where_active_entries_have_none():
    model = nn.ModuleDict({"a": nn.Linear(4, 1, bias=False)})
    with torch.no_grad():
        model["a"].weight.copy_(torch.tensor([[0.1, 5.0, 0.1, 0.1]]))  # type: ignore[union-attr]
    sparsify_model(model, 0.75)  # keeps the second
    steps = SparseOptimizer(optimizer_of(model), model, with_changes(RIGL, every=1), num_steps=20)
    steps.mover.before_step(model, 1)
    model["a"](torch.tensor([[5.0, 0.0, 5.0, 5.0]])).sum().backward()
    model["a"](torch.tensor([[0.0, 1.0, 0.0, 0.0]])).sum().backward()
    ((_, entries),) = active_tensors(model)
    assert entries.dense_gradient is not None and entries.dense_gradient.tolist() == [[5.0, 1.0, 5.0, 5.0]]
    steps.zero_grad()
    assert entries.dense_gradient is None  # a discarded batch drives no growth


def test_an_update_without_finite_gradients_is_left_out(caplog: pytest.LogCaptureFixture):
    for rule in (RIGL, SNFS):
        model, steps = sparse(with_changes(rule, every=2))
        for step in range(2):
            train(model, steps, step)
        before = current_masks(model)
        loss_of(model, 2).backward()
        for _, entries in active_tensors(model):
            assert entries.dense_gradient is not None
            entries.dense_gradient[0] = torch.inf
        steps.step()
        assert "not finite" in caplog.text
        assert all(torch.equal(mask, before[name]) for name, mask in current_masks(model).items())
        assert all(torch.isfinite(mean).all() for mean in steps.mover.momentum.values())


def test_a_step_without_any_gradient_says_so():
    model, steps = sparse(with_changes(RIGL, every=1))
    train(model, steps, 0)
    with pytest.raises(ValueError, match="no gradient reached the sparse tensors"):
        steps.step()


def test_copies_of_the_optimizer_are_refused_and_hooks_are_the_inner_ones():
    model, steps = sparse(SET)
    with pytest.raises(ValueError, match="belongs to its model"):
        copy.deepcopy(steps)
    seen: list[int] = []
    steps.register_step_post_hook(lambda *_: seen.append(1))
    train(model, steps, 0)
    other, again = sparse(SET)
    train(other, again, 0)
    assert seen == [1]


def test_channels_last_after_sparsifying():
    model, steps = sparse(with_changes(RIGL, every=2))
    twin, other = sparse(with_changes(RIGL, every=2))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for step in range(6):
        images, labels = batch(step)
        F.cross_entropy(model(images.to(memory_format=torch.channels_last)), labels).backward()
        steps.step()
        steps.zero_grad()
        train(twin, other, step)
    for name, tensor in current_tensors(model).items():
        torch.testing.assert_close(tensor, current_tensors(twin)[name], rtol=1e-3, atol=1e-5)


def test_state_that_cannot_follow_is_announced(caplog: pytest.LogCaptureFixture):
    model = conv_net()
    sparsify_model(model, 0.5)
    inner = torch.optim.LBFGS(list(model.parameters()), max_iter=2)
    steps = SparseOptimizer(inner, model, with_changes(SET, every=1), num_steps=20)

    def closure() -> torch.Tensor:
        steps.zero_grad()
        loss = loss_of(model, 0)
        loss.backward()
        return loss

    for _ in range(3):
        steps.step(closure)
    assert "LBFGS keeps" in caplog.text and "cannot follow" in caplog.text


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self) -> Any:
        return iter([{k: v for k, v in row.items() if k != "note"} for row in ROWS])


def test_data_without_a_length(tmp_path: Path):
    from networks import collate

    for how in (method("rigl", every=2), DropGrow(with_changes(SET, every="epoch"), density=0.2)):
        run = SparseTrainer(
            bert(), arguments(tmp_path, max_steps=5), method=how, train_dataset=Stream(), data_collator=collate
        )  # fmt: skip
        if how.rule.grow is SET.grow:
            with pytest.raises(ValueError, match="give it in steps"):
                run.train()
        else:
            run.train()
            assert run.state.global_step == 5


def test_a_users_own_optimizer_trains_the_active_entries(tmp_path: Path):
    model = bert()
    old = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = trainer(tmp_path, model, DropGrow(replace(SET, grow=None), density=0.3))
    run.optimizer = optimizer
    run.train()
    for name, mask in current_masks(model).items():
        now = current_tensors(model)[name]
        assert not torch.equal(now[mask], old[name][mask]) or "key.bias" in name
        assert not now[~mask].any()


@pytest.mark.parametrize("flags", [
    ("--load_best_model_at_end", "true", "--eval_strategy", "epoch", "--save_strategy", "epoch"),
    ("--num_train_epochs", "0", "--max_steps", "-1"),
    ("--update_every", "1000"),
])  # fmt: skip
def test_rigl_runs_report_whatever_happened(tiny_bert: str, rte: Path, tmp_path: Path, flags: tuple[str, ...]):
    more = () if "--update_every" in flags else ("--update_every", "4")
    result = go(tiny_bert, rte, tmp_path / "run", "--method", "rigl", "--density", "0.2", *more, *flags)
    moved = "--load_best_model_at_end" in flags
    assert (result.flops["training_share"] > result.flops["forward_share"] + 0.01) == moved
    assert json.loads((tmp_path / "run" / "results.json").read_text())["method"] == "rigl"


def test_arguments_are_checked():
    for wrong in ({"when": "x"}, {"gradients": "sometimes"}, {"regrown": "maybe"}):
        with pytest.raises(ValueError, match="unknown"):
            replace(SET, **wrong)
    for wrong in ({"start": "rnd"}, {"variance": "fan_in_out"}):
        with pytest.raises(ValueError, match="unknown"):
            sparsify_model(conv_net(), 0.5, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must give each tensor a density"):
        sparsify_model(conv_net(), 0.5, lambda shapes, density: [density] * 3)  # type: ignore
    model = conv_net()
    sparsify_model(model, 0.5)
    for count in (0, None):
        with pytest.raises(ValueError, match="num_steps is how often"):
            SparseOptimizer(optimizer_of(model), model, SET, num_steps=count)  # type: ignore[arg-type]
    steps = SparseOptimizer(optimizer_of(model), model, SET, num_steps=9)
    with pytest.raises(ValueError, match="not the state of a SparseOptimizer"):
        steps.load_state_dict(optimizer_of(model).state_dict())
