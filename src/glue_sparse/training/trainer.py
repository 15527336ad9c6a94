"""SparseTrainer: the Hugging Face Trainer on a model of which only some entries train. It knows no algorithm."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import TrainerState, TrainingArguments
from transformers.trainer_utils import TrainOutput

from glue_sparse.core import ranks
from glue_sparse.core.active import active_tensors
from glue_sparse.core.batches import Batch
from glue_sparse.core.finite import check_model
from glue_sparse.core.folding import check_folded
from glue_sparse.core.masks import Scores, digest
from glue_sparse.core.parametrization import is_attached, model_digest
from glue_sparse.core.params import head_names
from glue_sparse.core.reindexing import take_over
from glue_sparse.costs.cost import Cost, cost_of
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.identity import DiffInfo, base_named_by, facts_of
from glue_sparse.methods.base import Moment, SparseMethod
from glue_sparse.training import groups, half_speed, half_values, probes, samples, sharded, support
from glue_sparse.training.agreement import Agreement
from glue_sparse.training.divergence import StopOnDivergence, check_values, keep_finite
from glue_sparse.training.full_eval import types_kept
from glue_sparse.training.method_hooks import MethodHooks
from glue_sparse.training.resumable import ResumableTrainer
from glue_sparse.training.sharded_trainer import ShardsBase
from glue_sparse.training.windows import Windows


class SparseTrainer(ShardsBase, ResumableTrainer):
    """Trainer whose optimizer, clipping, weight decay and checkpoints see the active entries and the head only.

    Args:
        model: a plain model; `train` attaches the active entries that the method chooses.
        args: ordinary training arguments; DeepSpeed and what else cannot work are a ValueError.
        method: what decides which entries are active, `FixedMask(fisher, density=0.005)` for instance.
        head: names of the parameters that train whole; by default those that the task added to the base.
        info: facts to store with the diff; by default the base's name alone.
        **kwargs: as for `transformers.Trainer` (`train_dataset`, `data_collator`, ...), without `model_init`.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        method: SparseMethod,
        head: tuple[str, ...] | None = None,
        info: DiffInfo | None = None,
        **kwargs: Any,
    ):
        if kwargs.get("model_init") is not None:
            raise ValueError("SparseTrainer takes a model, not model_init: the masks belong to one model")
        support.check(model, args, method, head)
        if not any(kwargs.get(name) for name in ("optimizers", "optimizer_cls_and_kwargs")):
            probes.check(args)
        check_model(model)
        self.plan = sharded.plan_of(args, method)
        with support.built_as_asked("the Trainer"):
            super().__init__(model, args, **kwargs)
        support.check_accelerator(self.accelerator)
        half_speed.announce(args)
        self.windows = Windows(self, own_loss=type(self).compute_loss is not SparseTrainer.compute_loss)
        self.method = method
        self._has_chosen = self._was_attached = False
        self.agreement = Agreement(self)
        self.cost: Cost | None = None
        """What trained, counted before the method finished; none until `train` has ended."""
        self.divergence = StopOnDivergence(lambda: self.network)
        self.add_callback(self.divergence)  # before the method hears of the step
        self.add_callback(MethodHooks(method, lambda: self.network, self.moment))
        self.head = head_names(model) if head is None else head
        self.info = replace(
            info or DiffInfo(base_model=base_named_by(model)),
            **facts_of(model),
            base_digest=model_digest(self.network, self.head),
        )

    @property
    def num_epochs(self) -> float | None:
        """Passes over the training data in the whole run, once training has begun; none where it has no length."""
        per_epoch = samples.steps_per_epoch(self)
        return None if per_epoch is None else self.state.max_steps / per_epoch

    @property
    def num_steps(self) -> int | None:
        """Optimizer steps of the whole run, before it begins too; none where the data's length would have to tell."""
        if self.args.max_steps > 0:
            return self.args.max_steps
        per_epoch = samples.steps_per_epoch(self)
        return None if per_epoch is None else math.ceil(self.args.num_train_epochs * per_epoch)

    @property
    def _share(self) -> tuple[int, int]:
        return self.args.process_index, self.args.world_size

    def choose(self) -> None:
        """Let the method choose the active entries and attach them; `train` does it unless it resumes.

        Raises:
            ValueError: ranks that differ (`agreement`), or nothing that would train.
            RuntimeError: ranks chose differently (a score that depends on the rank).
        """
        self.agreement.check()
        support.check_plain(self.network)
        support.recompute_as_told(self.network, self.args)
        batches = partial(self.sample_batches, share=self._share)
        masks = self.method.prepare(self.model_to_choose_by(), self.head, batches, self._add_over_ranks)
        support.attach(self.method, self.network, masks)
        self._has_chosen, self._was_attached = True, is_attached(self.network)
        if ranks.count() > 1 and not ranks.agree(digest(masks)):
            raise RuntimeError("ranks differ in masks; scores may depend on data and seed alone")

    def _add_over_ranks(self, scores: Scores) -> Scores:
        """Sums over ranks, which then all choose alike. A score that uses no data is only multiplied by it."""
        return ranks.add(scores, self.args.device)

    def moment(self, state: TrainerState) -> Moment:
        """Where training is, as the method is told it."""
        assert isinstance(self.optimizer, torch.optim.Optimizer)

        def draw(num_samples: int, number: int) -> Iterable[Batch]:
            return self.sample_batches(num_samples, self._share, number)

        return Moment(
            state.global_step, state.max_steps, self.num_epochs, self.optimizer, self.head, draw, self._add_over_ranks
        )

    def sample_batches(self, num_samples: int, share: tuple[int, int] = (0, 1), draw: int = 0) -> Iterable[Batch]:
        """`num_samples` training examples, drawn by the seed, in batches of similar length.

        Args:
            share: (i, n): only the i-th of n equal parts of them.
            draw: number of the draw; another one gives other examples.
        """
        return samples.drawn(self, num_samples, share, draw)

    def start(self, checkpoint: str | None) -> None:
        """Choose the active entries now, unless a checkpoint has them."""
        if checkpoint is None:
            self.choose()

    def fit(self, checkpoint: str | None, interrupted: Callable[[], bool]) -> None:
        """`train`, from a checkpoint if one is given; it is a callback that stops it when it is interrupted."""
        self.train(resume_from_checkpoint=checkpoint)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput:
        """As in `Trainer`, on the active entries; a resumed run takes them from its checkpoint.

        Called again, it trains on from what has been trained, with the optimizer's state, as `Trainer` does.

        Raises:
            ValueError: called again with a method that ends for good (`SparseMethod.refuses_again`), or after `detach`.
        """
        if self.cost is not None and self.method.refuses_again:
            raise ValueError(self.method.refuses_again)
        self.agreement.check()
        support.check_held(self.network, self._was_attached)
        support.announce_frozen(self.network)
        if not resume_from_checkpoint and not self._has_chosen and not is_attached(self.network):
            self.choose()
        output = super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        self._has_chosen, self._was_attached = True, is_attached(self.network)
        if last := self.method.logs(self.network):
            self.log(last)
        self.cost = cost_of(self.network)
        self.method.finish(self.network, Path(str(self.args.output_dir)) if self.args.should_save else None)
        return output

    def compute_loss(self, model: nn.Module, inputs: Batch, return_outputs: bool = False, **kwargs: Any) -> Any:
        """The model's mean loss, while training by its share of the step and with the method's penalty."""
        if self.compute_loss_func is None or self.windows.deaf:  # the model would divide by it; see `windows`
            kwargs.pop("num_items_in_batch", None)
        found: Any = super().compute_loss(model, inputs, return_outputs=return_outputs, **kwargs)
        if not model.training:
            return found
        loss, outputs = found if return_outputs else (found, None)
        loss = self.windows.loss(loss, self.method.penalty(self.network))
        return (loss, outputs) if return_outputs else loss

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Batch], Any]:
        """As in `Trainer`; the batches of a step weigh as their items do in one large batch."""
        batches, num_items = super().get_batch_samples(*args, **kwargs)
        return batches, self.windows.open(batches, num_items, self.network)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """As in `Trainer`, with the method's own parameter groups."""
        if self.optimizer is not None:  # the user's own, built before entries became active
            take_over(self.optimizer, self.network)  # pyright: ignore[reportArgumentType]
            half_values.as_told(self.args, self.network, self.optimizer, lambda: self.state.global_step)
            return super().create_optimizer(model)
        built = support.built_as_asked("the optimizer of `optim`", self.args.optim)
        with groups.empty_ones_count(self.network, self.method.moves), built:
            optimizer = super().create_optimizer(model)
        half_values.as_told(self.args, self.network, optimizer, lambda: self.state.global_step)
        groups.add(optimizer, self.method.param_groups(self.network))
        if (rate := getattr(self.args, "head_learning_rate", None)) is not None:  # transformers' arguments have none
            groups.give_rate(optimizer, [p for n, p in self.network.named_parameters() if n in self.head], rate)
        return optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """As in `Trainer`, except for groups with `schedule: constant`.

        Raises:
            ValueError: such a group under a schedule that does not multiply rates.
        """
        with support.built_as_asked("the schedule of `lr_scheduler_type`", self.args.lr_scheduler_type):
            scheduler = super().create_scheduler(num_training_steps, optimizer)
        groups.keep_constant(scheduler, str(self.args.lr_scheduler_type))
        return scheduler

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As in `Trainer`; DDP cannot follow entries that move, so their gradients are averaged here."""
        with self.windows.inside(kwargs["inputs"] if "inputs" in kwargs else args[1]):
            loss = super().training_step(*args, **kwargs)
        self.divergence.note(loss)
        if self.method.moves and self.args.world_size > 1 and self.accelerator.sync_gradients:
            ranks.average_gradients([e.values for _, e in active_tensors(self.network) if e.num_active])
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in `Trainer`, with the method's facts beside the training loss."""
        extra = self.method.logs(self.network) if "loss" in logs else {}
        super().log({**logs, **extra}, start_time)
        keep_finite(self.state)

    def sparse_diff(self) -> SparseDiff:
        """What has been trained so far."""
        return SparseDiff.from_model(self.network, self.info, self.head)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """As in `Trainer`; in half precision it evaluates a cast model, and leaves the one that has trained."""
        with types_kept(self.network):
            return super().evaluation_loop(*args, **kwargs)

    # Private to transformers 5: tests/training/test_private_hooks.py holds their names and parameters.

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """As in `Trainer`, except for groups with `clipped: apart`, each of which has a norm of its own."""
        return groups.clip(model, self.method.param_groups(self.network), self.accelerator, self.args.max_grad_norm)

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler | None:
        """Always in the data's order, by which outputs and rows are matched; `group_by_length` would shuffle it."""
        alone = self.args.world_size <= 1 and hasattr(eval_dataset, "__len__")
        return SequentialSampler(eval_dataset) if alone else None

    def _get_dataloader(self, *args: Any, is_training: bool = False, **kwargs: Any) -> DataLoader:
        """As in `Trainer`, except that `dataloader_drop_last` holds for training alone: all that is scored counts."""
        drop_last = self.args.dataloader_drop_last
        self.args.dataloader_drop_last = drop_last and is_training
        try:
            return super()._get_dataloader(*args, is_training=is_training, **kwargs)
        finally:
            self.args.dataloader_drop_last = drop_last

    def _wrap_model(self, model: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        """Tell DDP that frozen tensors and constant buffers are the same on all ranks, so that it never sends them."""
        fixed = [name for name, p in model.named_parameters() if not p.requires_grad]
        if self.method.moves:
            ours = {id(entries.values) for _, entries in active_tensors(self.network)}
            fixed += [name for name, p in model.named_parameters() if id(p) in ours]
        fixed += [name for name, buffer in model.named_buffers() if not buffer.is_floating_point()]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, fixed)
        return super()._wrap_model(model, *args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """A checkpoint's model is its sparse diff: the base does not change, so it is not saved again."""
        if self.args.should_save:
            check_values(self.network, self.state.global_step, self.args.learning_rate)
            check_folded(self.network)
            keep_finite(self.state)
            self.method.save(self.network, self.info, Path(output_dir or self.args.output_dir or "."))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.method.restore(model or self.network, self.head, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self.method.restore(self.network, self.head, Path(str(self.state.best_model_checkpoint)))
