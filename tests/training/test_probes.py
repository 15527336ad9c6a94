"""Optimizer, schedule and recomputation are tried before the method is asked for its entries."""

from pathlib import Path
from typing import Any

import pytest
from transformers.training_args import OptimizerNames

from glue_sparse import FixedMask
from glue_sparse.training.probes import BY_SCORE, check
from training import arguments, trainer


class Untouched(FixedMask):
    """A method that must not be asked."""

    def prepare(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("it chose entries")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optim_args": "a=b"}, "`optim` adamw_torch_fused takes no 'a' in `optim_args`"),
        ({"optim_args": "eps=1e-6"}, "takes no 'eps' in `optim_args`"),
        ({"optim": "adafactor", "optim_args": "momentum=0.9"}, "`optim` adafactor takes no 'momentum'"),
        ({"optim": "sgd", "optim_args": "momentum=0.9,centered=true"}, "`optim` sgd takes no 'centered'"),
        ({"optim_args": "="}, "`optim_args` is NAME=VALUE"),
        ({"optim": "sgd", "optim_args": "momentum"}, "`optim_args` is NAME=VALUE"),
        ({"optim": "sgd", "optim_args": "momentum=nan"}, "momentum=nan, which is no finite number"),
        ({"optim": "sgd", "optim_args": "momentum=-1"}, "`optim` sgd cannot be had as it is asked for: .*momentum"),
        ({"optim": "sgd", "optim_args": "momentum=x"}, "`optim` sgd cannot be had as it is asked for"),
        ({"optim": "sgd", "optim_args": "weight_decay=1"}, "give `weight_decay` instead"),
        ({"optim": "lomo"}, "`optim` lomo cannot be had as it is asked for: .*lomo"),
        ({"optim": "adamw_bnb_8bit"}, "bitsandbytes"),
        ({"lr_scheduler_kwargs": {"a": 1}}, "`lr_scheduler_type` linear cannot be had .* 'a'"),
        ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": "x"}}, "`lr_scheduler_type` cosine"),
        ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": float("inf")}}, "`lr_scheduler_type`"),
        ({"lr_scheduler_type": "warmup_stable_decay"}, "num_decay_steps"),
        ({"use_liger_kernel": True}, "`use_liger_kernel` needs the package liger-kernel"),
        ({"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"a": 1}}, "`gradient_checkpointing_"),
    ],
)
def test_refused_before_entries_are_chosen(settings: dict[str, Any], message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message) as found:
        trainer(tmp_path, method=Untouched(masks={}), **settings)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"optim": "sgd", "optim_args": "momentum=0.9, nesterov=True"},
        {"optim": "rmsprop", "optim_args": "alpha=0.9,centered=1"},
        {"optim": "adagrad", "optim_args": "eps=0.0000000001"},
        {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 2}},
        {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 2.0}, "learning_rate": 1e-3},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
        {"learning_rate": 0.0},
    ],
)
def test_accepted(settings: dict[str, Any], tmp_path: Path):
    check(arguments(tmp_path, **settings))


def test_every_optimizer_and_schedule_is_accepted_or_refused_in_a_sentence(tmp_path: Path):
    args, accepted = arguments(tmp_path), set()
    for one in (*OptimizerNames, *type(BY_SCORE[0])):
        args = arguments(tmp_path)
        setattr(args, "optim" if isinstance(one, OptimizerNames) else "lr_scheduler_type", one)
        try:
            check(args)
            accepted.add(one.value)
        except ValueError as error:
            assert one.value in str(error)
    assert {"adamw_torch", "adafactor", "sgd", "adagrad", "rmsprop", "linear", "greedy"} <= accepted


def test_an_optimizer_of_the_users_own_is_not_tried(tmp_path: Path):
    run = trainer(tmp_path, method=FixedMask(masks={}))
    given: Any = run.create_optimizer()
    args = arguments(tmp_path, optim_args="a=b")
    own: Any = type(run)(run.network, args, method=FixedMask(masks={}), optimizers=(given, None))
    assert own.optimizer is given
