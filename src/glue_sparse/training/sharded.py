"""FSDP2 as `fsdp`, `fsdp_config` and accelerate's configurations ask for it, done by `core.sharding`.

accelerate would shard what trains as well, and does nothing on a CPU, so it is told nothing of it.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from accelerate.utils import FullyShardedDataParallelPlugin
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy
from transformers import TrainingArguments

from glue_sparse.arguments.sharding import is_on
from glue_sparse.core import sharding
from glue_sparse.core.parametrization import is_attached
from glue_sparse.core.shards import is_sharded
from glue_sparse.methods.base import SparseMethod
from glue_sparse.training.support import built_as_asked
from glue_sparse.writing.fields import typed
from glue_sparse.writing.words import check_one_of

_WISH = "ACCELERATE_USE_FSDP"
_KEYS = (
    "version", "reshard_after_forward", "cpu_offload", "auto_wrap_policy", "transformer_layer_cls_to_wrap",
    "activation_checkpointing", "dp_replicate_size", "state_dict_type", "min_num_params", "cpu_ram_efficient_loading",
    "xla", "xla_fsdp_v2", "xla_fsdp_grad_ckpt",
)  # fmt: skip
"""Of `fsdp_config`, which transformers would ignore otherwise; `dp_replicate_size` is our own."""


@dataclass(frozen=True)
class Plan:
    """How the frozen base is shared out.

    Attributes:
        reshard_after_forward: whether layers are put together again for the backward pass, instead of kept.
        offloads: whether parts lie in the CPU's memory.
        layers: names of the classes that are put together at a time; none for those that transformers recomputes.
        is_one: whether the whole model is put together at once.
        recomputes: whether activations of layers are computed again in the backward pass.
        replicas: groups of ranks of which each holds the whole base (HSDP).
        chooses_on_shards: whether entries are chosen on a copy that is shared out.
    """

    reshard_after_forward: bool
    offloads: bool
    layers: tuple[str, ...]
    is_one: bool
    recomputes: bool
    replicas: int
    chooses_on_shards: bool

    def to_choose_by(self, model: nn.Module, device_type: str) -> nn.Module:
        """The model itself, or a copy that is shared out, by which a method chooses."""
        if not self.chooses_on_shards:
            return model
        return sharding.sharded_copy(model, self._mesh(device_type), self._chosen(model))

    def apply(self, model: nn.Module, head: Sequence[str] | None, device_type: str) -> None:
        """Share a model out, once its active entries are there; a model that is shared out already stays so."""
        if is_sharded(model):
            return
        if not is_attached(model):
            raise ValueError("`fsdp` shares out the base that active entries leave frozen, and this method leaves none "
                             "frozen or holds a number for each weight: use DDP, or transformers' own Trainer under "
                             "FSDP2")  # fmt: skip
        if self.recomputes:
            model.gradient_checkpointing_enable({"use_reentrant": False})  # pyright: ignore[reportCallIssue]
        sharding.shard(
            model, self._mesh(device_type), layers=self._chosen(model), head=head,
            reshard_after_forward=self.reshard_after_forward, offload_policy=self._offload(device_type),
        )  # fmt: skip

    def _offload(self, device_type: str) -> OffloadPolicy:
        return CPUOffloadPolicy(pin_memory=device_type != "cpu") if self.offloads else OffloadPolicy()

    def _mesh(self, device_type: str) -> DeviceMesh:
        size = dist.get_world_size()
        if self.replicas < 1 or size % self.replicas:
            raise ValueError(f"{size} processes cannot form {self.replicas} equal groups: change `dp_replicate_size` "
                             "of `fsdp_config`")  # fmt: skip
        if self.replicas == 1:
            return init_device_mesh(device_type, (size,))
        return init_device_mesh(
            device_type, (self.replicas, size // self.replicas), mesh_dim_names=("replicate", "shard")
        )

    def _chosen(self, model: nn.Module) -> list[nn.Module] | None:
        if self.is_one:
            return []
        if not self.layers:
            return None
        found = [module for module in model.modules() if type(module).__name__ in self.layers]
        if not found:
            raise ValueError(f"{type(model).__name__} has no module of the class {self.layers[0]}, which "
                             "`transformer_layer_cls_to_wrap` names")  # fmt: skip
        return found


def plan_of(args: TrainingArguments, method: SparseMethod | None = None) -> Plan | None:
    """What the arguments, or the launcher, ask for; none without FSDP.

    Args:
        method: what chooses the active entries, where that is left to a trainer.
    Raises:
        ValueError: what cannot be had.
    """
    given, on_shards = getattr(args, "fsdp_plugin_args", None), getattr(args, "choose_on_shards", False)
    if given is None and not is_on(_WISH):
        if on_shards:
            raise ValueError("`choose_on_shards` is for a model that `fsdp` shares out: leave it out, or give `fsdp`")
        return None
    if on_shards and method and method.refuses_shards:
        raise ValueError(method.refuses_shards)
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError("`fsdp` shares a model out over processes, and this is the only one: start the same command "
                         "by torchrun or accelerate launch")  # fmt: skip
    if method and method.moves:
        raise ValueError("`fsdp` is for active entries that stay the same, and this method moves them: use DDP")
    told = (given or {}).get("fsdp_version", os.environ.get("FSDP_VERSION", "1"))
    if str(told) != "2":
        raise ValueError(f"`fsdp` with version {told} of FSDP cannot train active entries: set `version` 2 in "
                         "`fsdp_config`, or fsdp_version: 2 in the launcher's file")  # fmt: skip
    with _environment_kept(), built_as_asked("`fsdp`"):  # a plugin writes to the environment
        plugin = FullyShardedDataParallelPlugin(**(given or {}))
    config: Any = args.fsdp_config or {}
    _check(plugin, args, config)
    names: Any = plugin.transformer_cls_names_to_wrap or ()
    return Plan(
        reshard_after_forward=bool(plugin.reshard_after_forward),
        offloads=isinstance(plugin.cpu_offload, CPUOffloadPolicy),
        layers=tuple(names.split(",") if isinstance(names, str) else names),
        is_one=plugin.auto_wrap_policy is None,
        recomputes=bool(plugin.activation_checkpointing),
        replicas=int(config.get("dp_replicate_size", 1)),
        chooses_on_shards=on_shards,
    )


def _check(plugin: FullyShardedDataParallelPlugin, args: TrainingArguments, config: dict[str, Any]) -> None:
    for name in config:
        check_one_of("key of `fsdp_config`", name, _KEYS)
    typed(int, config.get("dp_replicate_size", 1), "`dp_replicate_size` of `fsdp_config`")
    for is_asked, what, way in (
        (config.get("xla"), "`xla`", "leave it out"),
        (plugin.cpu_ram_efficient_loading, "`cpu_ram_efficient_loading`, which leaves most ranks without weights while "
         "entries are chosen,", "set it to false"),
        (getattr(args, "save_model", False), "`save_model`", "leave it out, and write the model afterwards by "
         "glue-sparse diff apply"),
        (getattr(args, "delta_checkpoints", False), "`delta_checkpoints`, which read the whole base,", "leave it out"),
        (args.bf16_full_eval or args.fp16_full_eval, "an evaluation in half precision of its own",
         "leave `bf16_full_eval` and `fp16_full_eval` out"),
        (plugin.min_num_params, "`min_num_params`", "name classes by `transformer_layer_cls_to_wrap`, or nothing"),
    ):  # fmt: skip
        if is_asked:
            raise ValueError(f"`fsdp` with {what} cannot train active entries: {way}")


@contextmanager
def _environment_kept() -> Iterator[None]:
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def kept_from_accelerate(args: TrainingArguments) -> Iterator[None]:
    """Within the block an accelerator that is made hears nothing of FSDP."""
    given: Any = args.fsdp_plugin_args
    with _environment_kept():
        os.environ.pop(_WISH, None)
        args.fsdp_plugin_args = None
        try:
            yield
        finally:
            args.fsdp_plugin_args = given
