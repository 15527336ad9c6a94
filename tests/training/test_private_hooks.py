"""The private methods of transformers.Trainer that ours override or call are there, with the parameters we rely on.

A method that is renamed upstream would leave an override that nobody calls: clipping, the order of evaluation or
checkpoints would go wrong without a word.
"""

import inspect
from collections.abc import Callable

import pytest
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer

from glue_sparse.training.resumable import ResumableTrainer
from glue_sparse.training.sharded_trainer import ShardsBase
from glue_sparse.training.trainer import SparseTrainer

RELIED_ON: dict[str, tuple[str, ...]] = {
    "_clip_grad_norm": ("model",),
    "_defer_fsdp_gradient_reduction": (),
    "_evaluate": ("trial", "ignore_keys_for_eval", "skip_scheduler"),
    "_finalize_training": ("trial", "num_train_samples", "start_time"),
    "_get_collator_with_removed_columns": ("data_collator",),
    "_get_dataloader": ("is_training",),
    "_get_eval_sampler": ("eval_dataset",),
    "_get_num_items_in_batch": ("batch_samples", "device"),
    "_get_output_dir": ("trial",),
    "_init_training_state": ("max_steps", "num_update_steps_per_epoch", "num_train_epochs", "trial"),
    "_load_best_model": (),
    "_load_from_checkpoint": ("resume_from_checkpoint", "model"),
    "_load_optimizer_and_scheduler": ("checkpoint",),
    "_load_rng_state": ("checkpoint",),
    "_load_scaler": ("checkpoint",),
    "_move_model_to_device": ("model", "device"),
    "_prepare_for_training": ("max_steps", "train_dataloader", "resume_from_checkpoint"),
    "_save": ("output_dir", "state_dict"),
    "_save_checkpoint": ("model", "trial"),
    "_sync_replicated_trainable_parameters": ("model",),
    "_wrap_model": ("model",),
}
"""Private method of `Trainer` -> the parameters by which we call it, or by which it calls ours."""
OUR_OWN = {
    "_add_over_ranks", "_check_division", "_counted_step", "_find", "_num_examples", "_restore_sums", "_share", "_sums",
}  # fmt: skip
"""Private members that the Trainer knows nothing of."""
KEPT = ("_globalstep_last_logged", "_initial_global_step", "_total_loss_scalar", "_tr_loss")
"""What the Trainer sums up, and a checkpoint of ours keeps."""


def own_members() -> dict[str, object]:
    return {**vars(ResumableTrainer), **vars(ShardsBase), **vars(SparseTrainer)}


def parameters(function: Callable[..., object]) -> set[str]:
    return set(inspect.signature(function).parameters) - {"self"}


@pytest.mark.parametrize("name", RELIED_ON)
def test_the_trainer_has_it_with_these_parameters(name: str):
    assert parameters(getattr(Trainer, name)) >= set(RELIED_ON[name])


def test_every_private_member_is_an_override_we_know_of_or_our_own():
    private = {name for name in own_members() if name.startswith("_") and not name.startswith("__")}
    assert private - OUR_OWN <= RELIED_ON.keys()
    assert not any(hasattr(Trainer, name) for name in OUR_OWN)


def test_overrides_take_what_the_trainer_hands_them():
    for name in RELIED_ON.keys() & own_members().keys():
        ours, theirs = (inspect.signature(getattr(kind, name)) for kind in (SparseTrainer, Trainer))
        takes_all = any(p.kind is p.VAR_KEYWORD for p in ours.parameters.values())
        assert takes_all or ours.parameters.keys() >= theirs.parameters.keys(), name


@pytest.mark.parametrize("name", KEPT)
def test_the_trainer_sums_up_before_training_begins(name: str):
    code = inspect.getsource(Trainer._inner_training_loop)
    assert code.index(f"self.{name} =") < code.index("callback_handler.on_train_begin")


def test_ddp_can_be_told_what_to_ignore():
    ignore = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
    assert [*inspect.signature(ignore).parameters] == ["module", "params_and_buffers_to_ignore"]
