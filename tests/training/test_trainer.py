"""SparseTrainer end to end on a tiny BERT: what may move, what must not, and exact resumption."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    Trainer,
    TrainerCallback,
)

from decoders import pruned
from glue_sparse import FixedMask, SparseDiff, SparseTrainer, attach, detach, noise, select
from glue_sparse.arguments.method import SPARSE, MethodArguments
from glue_sparse.core.active import active_tensors, current_masks
from glue_sparse.core.masks import Masks
from glue_sparse.core.params import body_names, encoder_matrices, head_names
from glue_sparse.methods.registry import METHODS, build_method
from networks import bert, cast, collate
from rare import rarely
from training import ROWS, StopAt, arguments, trainer


@pytest.mark.parametrize(
    ("optim", "dtype"),
    rarely(
        product(["adamw_torch_fused", "adamw_torch", "sgd"], [torch.float32, torch.bfloat16]),
        [("adamw_torch_fused", torch.float32), ("adamw_torch", torch.bfloat16), ("sgd", torch.bfloat16)],
    ),
)
def test_inactive_entries_are_bit_identical(tmp_path: Path, optim: str, dtype: torch.dtype):
    base, model = cast(bert(), dtype), cast(bert(), dtype)
    run = trainer(tmp_path, model, optim=optim, gradient_accumulation_steps=2)
    run.train()
    masks = current_masks(model)
    detach(model)
    num_active = moved = 0
    for name, old in base.named_parameters():
        new, mask = model.get_parameter(name), masks.get(name)
        if mask is not None:
            assert torch.equal(new[~mask], old[~mask]), name
            num_active += int(mask.sum())
            moved += int((new[mask] != old[mask]).sum())
        else:
            assert not torch.equal(new, old), name
    assert num_active == int(0.05 * sum(p.numel() for p in base.parameters())) - 34
    assert moved > 0.5 * num_active


def test_the_optimizer_holds_nothing_but_active_entries_and_head(tmp_path: Path):
    run = trainer(tmp_path)
    run.train()
    num_active = sum(len(entries.indices) for _, entries in active_tensors(run.network)) + 34
    held = [p for group in run.optimizer.param_groups for p in group["params"]]  # pyright: ignore
    assert sum(p.numel() for p in held) == num_active
    state = [t for s in run.optimizer.state.values() for t in s.values() if t.dim()]  # pyright: ignore
    assert sum(t.numel() for t in state) == 2 * num_active


class MaskGradients(TrainerCallback):
    """The reference: a dense model whose gradients are multiplied by the mask before clipping."""

    def __init__(self, model: nn.Module, masks: Masks):
        for name, mask in masks.items():
            model.get_parameter(name).register_hook(lambda grad, mask=mask: grad * mask)


@pytest.mark.parametrize("optim", ["adamw_torch", "sgd"])
def test_trajectory_equals_a_dense_model_with_masked_gradients(tmp_path: Path, optim: str):
    sparse_model, dense_model = bert(), bert()
    masks = select(noise(dense_model, body_names(dense_model, head_names(dense_model))), 400)
    run = trainer(tmp_path, sparse_model, FixedMask(masks=masks), optim=optim, weight_decay=0.0)
    run.train()
    reference = Trainer(
        dense_model, arguments(tmp_path, optim=optim, weight_decay=0.0), train_dataset=ROWS,  # pyright: ignore
        data_collator=collate, callbacks=[MaskGradients(dense_model, masks)],
    )  # fmt: skip
    reference.model_accepts_loss_kwargs = False
    reference.train()
    detach(sparse_model)
    for name, p in sparse_model.named_parameters():
        torch.testing.assert_close(p, dense_model.get_parameter(name), rtol=2e-4, atol=2e-5, msg=name)
    losses = [[log["loss"] for log in t.state.log_history if "loss" in log] for t in (run, reference)]
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=1e-3, atol=1e-4)


def test_loss_and_step_do_not_depend_on_accumulation(tmp_path: Path):
    """BERT's head accepts **kwargs without normalising by them; see SparseTrainer.__init__."""
    weights = []
    for steps in (1, 2, 4):
        model = bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        run = trainer(
            tmp_path, model, FixedMask(masks={}), optim="sgd", learning_rate=1.0, max_grad_norm=0, weight_decay=0.0,
            per_device_train_batch_size=16 // steps, gradient_accumulation_steps=steps, max_steps=1,
        )  # fmt: skip
        run.train()
        weights.append(model.get_parameter("bert.pooler.dense.weight").detach())
        assert abs(run.state.log_history[0]["loss"] - 0.693) < 0.05
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(weights[2], weights[0], rtol=1e-4, atol=1e-6)


def test_resumed_run_equals_uninterrupted_run(tmp_path: Path):
    whole = trainer(tmp_path / "whole", save_strategy="steps", save_steps=4)
    whole.train()

    trainer(tmp_path / "cut", save_strategy="steps", save_steps=4, callbacks=[StopAt(4)]).train()
    checkpoint = tmp_path / "cut" / "checkpoint-4"
    assert (checkpoint / "sparse_diff.safetensors").is_file()
    held = {path.name for path in checkpoint.iterdir()}
    assert not held & {"model.safetensors", "pytorch_model.bin", "training_args.bin"}

    def refuse(*args: Any) -> Any:
        raise AssertionError("a resumed run takes its masks from the checkpoint")

    resumed = trainer(tmp_path / "cut", method=FixedMask(refuse), save_strategy="steps", save_steps=4)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    one, other = whole.sparse_diff(), resumed.sparse_diff()
    for part in ("indices", "values", "whole"):
        first, second = getattr(one, part), getattr(other, part)
        assert first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)
    one_state, other_state = whole.optimizer.state_dict(), resumed.optimizer.state_dict()  # pyright: ignore
    for key, state in one_state["state"].items():
        assert all(torch.equal(state[k], other_state["state"][key][k]) for k in state)


def test_resuming_on_another_base_is_refused(tmp_path: Path):
    trainer(tmp_path, save_strategy="epoch").train()
    with pytest.raises(ValueError, match="differs from the base"):
        trainer(tmp_path, bert(seed=1)).train(resume_from_checkpoint=True)


def test_best_model_is_the_best_checkpoint(tmp_path: Path):
    run = trainer(
        tmp_path, eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True, num_train_epochs=4,
        learning_rate=0.5,
    )  # fmt: skip
    run.train()
    best = SparseDiff.from_pretrained(str(run.state.best_model_checkpoint))
    assert all(torch.equal(v, best.values[n]) for n, v in run.sparse_diff().values.items())
    losses = [log["eval_loss"] for log in run.state.log_history if "eval_loss" in log]
    assert run.evaluate()["eval_loss"] == pytest.approx(min(losses))


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"fixed_mask", "diff_gates", "lottery_ticket"}))
def test_every_method_trains_what_it_says(tmp_path: Path, name: str):
    model = pruned(bert()) if name == "keep_zeros" else bert()
    num_updates = 2 if name == "dynsparse" else None
    arguments = MethodArguments(method=name, density=0.05, num_samples=8, num_updates=num_updates)
    run = trainer(tmp_path, model, build_method(arguments, seed=0), max_steps=2)
    run.train()
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in bert().parameters())
    biases = sum(p.numel() for n, p in bert().named_parameters() if n.endswith("bias"))
    half = sum(bert().get_parameter(name).numel() for name in encoder_matrices(bert())) // 2
    expected = {"dense": everything, "bitfit": biases + 32, "head": 34, "one_shot": everything - half}
    expected["keep_zeros"] = everything - half
    sparse = sum(round(0.05 * bert().get_parameter(name).numel()) for name in encoder_matrices(bert()))
    expected |= dict.fromkeys((*SPARSE, "alternate"), everything - 2 * half + sparse)
    assert trainable == expected.get(name, int(0.05 * everything))


def test_patterns_limit_where_active_entries_may_be():
    model, head = bert(), ("classifier.weight", "classifier.bias")
    masks = FixedMask(noise, density=0.05, tensors=["*.encoder.*weight"]).prepare(model, head, lambda count: [])
    everything = sum(p.numel() for p in model.parameters())
    assert sum(int(mask.sum()) for mask in masks.values()) == int(0.05 * everything) - 34
    chosen = {name for name, mask in masks.items() if mask.any()}
    assert chosen and all(".encoder." in name and name.endswith("weight") for name in chosen)
    assert masks.keys() == set(body_names(model, head))
    with pytest.raises(ValueError, match="matches no parameter"):
        FixedMask(noise, tensors=["encodr.*"]).prepare(model, head, lambda count: [])


def test_mask_from_an_earlier_run(tmp_path: Path):
    first = trainer(tmp_path / "a")
    first.train()
    first.save_model()
    method = build_method(MethodArguments(method="fixed_mask", mask_file=str(tmp_path / "a")), seed=0)
    second = trainer(tmp_path / "b", method=method)
    second.train()
    one, other = first.sparse_diff().indices, second.sparse_diff().indices
    assert one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_sampled_examples_depend_on_the_seed_and_leave_the_random_state(tmp_path: Path):
    run, twin, another = trainer(tmp_path), trainer(tmp_path), trainer(tmp_path, seed=1)
    state = torch.get_rng_state()
    first = [batch["input_ids"] for batch in run.sample_batches(16)]
    again = [batch["input_ids"] for batch in twin.sample_batches(16)]
    other = [batch["input_ids"] for batch in another.sample_batches(16)]
    assert torch.equal(torch.get_rng_state(), state)
    assert sum(map(len, first)) == 16 and all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert sum(len(batch["input_ids"]) for batch in run.sample_batches(10_000)) == len(ROWS)


def test_fixed_mask_and_trainer_refuse_contradictions(tmp_path: Path):
    with pytest.raises(ValueError, match="one of a score, masks"):
        FixedMask()
    with pytest.raises(ValueError, match="not model_init"):
        SparseTrainer(bert(), arguments(tmp_path), method=FixedMask(masks={}), model_init=bert)
    with pytest.raises(ValueError, match="must name each"):
        trainer(tmp_path, method=FixedMask(lambda model, names, batches: {}, density=0.5)).train()
    with pytest.raises(ValueError, match="head alone"):
        trainer(tmp_path, method=FixedMask(noise, density=1e-3)).train()


def test_rows_are_evaluated_in_their_order_even_when_training_groups_them_by_length(tmp_path: Path):
    run = trainer(tmp_path, train_sampling_strategy="group_by_length", max_steps=1)
    run.train()
    found = run.predict(ROWS[:16]).label_ids  # pyright: ignore[reportArgumentType]
    assert list(found) == [row["labels"] for row in ROWS[:16]]  # pyright: ignore


def test_training_an_attached_model_keeps_its_masks(tmp_path: Path):
    model = bert()
    masks = select(noise(model, body_names(model, head_names(model)), seed=9), 100)
    attach(model, masks)
    trainer(tmp_path, model, FixedMask(noise, density=0.05), max_steps=2).train()
    found = current_masks(model)
    assert all(torch.equal(found[name], masks[name]) for name in masks)
