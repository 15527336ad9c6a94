"""The frozen base of an attached model shared out over ranks by FSDP2; what trains stays whole on each of them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any, TypeVar
from weakref import ref

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Variable
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from transformers.modeling_layers import GradientCheckpointingLayer

from glue_sparse.core import ranks, support
from glue_sparse.core.content import content_digest
from glue_sparse.core.folding import Folding
from glue_sparse.core.parametrization import held_tensors, is_attached
from glue_sparse.core.params import head_names
from glue_sparse.core.shards import is_sharded

Model = TypeVar("Model", bound=nn.Module)


def shard(
    model: Model, mesh: DeviceMesh | None = None, *, layers: Sequence[nn.Module] | None = None,
    head: Sequence[str] | None = None, **options: Any,
) -> Model:  # fmt: skip
    """Share the frozen base of an attached model out over ranks, so that each holds a part of it (FSDP2).

    Layers are put together when they compute, forward and backward. What trains, the values of active entries and
    tensors that train whole, is on every rank; its gradients are averaged at the end of each backward pass, in one
    message and in the order of ranks, and nothing else of the gradients is sent. After each step of an optimizer the
    values are written into the part of the base that is here, so that losses are those of one process.

    While gradients are accumulated, `model.set_requires_gradient_sync(False)` puts the averaging off, as under FSDP2.

    Args:
        model: what `attach` changed, the same on all ranks; changed in place, and moved to the mesh's device.
        mesh: as for `fully_shard`: one dimension to shard over, or two to replicate and to shard over. By default all
            ranks.
        layers: what is put together at a time; by default the layers that transformers recomputes, or nothing but the
            whole.
        head: names of parameters that stay whole even where they are frozen; by default see `head_names`.
        options: of `fully_shard`: `reshard_after_forward` (for layers), `mp_policy`, `offload_policy` and so on.
    Returns:
        The same model.
    Raises:
        ValueError: no active entries, gates, a model that is sharded already, or no group of ranks; nothing is changed.
        RuntimeError: ranks hold other values, or at other positions.
    """
    _check(model)
    mesh = mesh or init_device_mesh(_device_type(), (ranks.count(),))
    whole = _trained(model, head_names(model) if head is None else head)
    _check_same(model)
    _move(model, whole, mesh)
    options |= {"mesh": mesh, "ignored_params": {*whole}}
    for module in _layers(model) if layers is None else layers:
        fully_shard(module, **options)
    # what is outside of layers is used last and first again, so that torch keeps it together where nothing is said
    fully_shard(model, **{name: value for name, value in options.items() if name != "reshard_after_forward"})
    _settle(model)
    _Averaging(model, whole, mesh)
    return model


def sharded_copy(model: Model, mesh: DeviceMesh, layers: Sequence[nn.Module] | None = None) -> Model:
    """A copy of a plain model of which ranks hold parts in float32, to choose its entries by and to be thrown away.

    It computes in the type of the model. Until layers have been moved to the mesh's device one after the other, the
    copy takes the memory of the model, on the model's device.

    Args:
        mesh, layers: as for `shard`.
    """
    chosen = _layers(model) if layers is None else layers
    names = [name for name, module in model.named_modules() if any(module is one for one in chosen)]
    copied = deepcopy(model)
    types = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    half = next((dtype for dtype in types if dtype.itemsize < torch.float32.itemsize), None)
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32) if half else MixedPrecisionPolicy()
    for module in [*map(copied.get_submodule, names), copied]:
        fully_shard(module, mesh=mesh, mp_policy=policy)
    return copied.float() if half else copied


def _check(model: nn.Module) -> None:
    if not is_attached(model):
        raise ValueError("this model has no active entries: call attach(model, masks) before it is sharded, or shard "
                         "it by fully_shard alone")  # fmt: skip
    if any(not isinstance(held, Folding) for _, held in held_tensors(model)):
        raise ValueError("this model holds gates, one for each of its weights, which are not sharded: train it by DDP, "
                         "or in one process")  # fmt: skip
    if is_sharded(model):
        raise ValueError("this model is sharded already: call shard once")
    support.check_model(model)
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError("no ranks are there to share the model out to: start the program by torchrun or accelerate "
                         "launch, and call torch.distributed.init_process_group() first")  # fmt: skip


def _check_same(model: nn.Module) -> None:
    if not ranks.agree(content_digest([(name, held.places, held.values.detach()) for name, held in _folding(model)])):
        raise RuntimeError("ranks differ in the active entries of the model, or in their values: choose them, or load "
                           "them, alike on all ranks before it is sharded")  # fmt: skip


def _device_type() -> str:
    found = torch.accelerator.current_accelerator()
    return "cpu" if found is None or dist.get_backend() == "gloo" else found.type


def _layers(model: nn.Module) -> list[nn.Module]:
    """The layers of a model of transformers, but for those that share a tensor with what is outside of them."""
    found = [one for one in model.modules() if isinstance(one, GradientCheckpointingLayer)]
    inside = {id(module) for layer in found for module in layer.modules()}
    outside = [module for module in model.modules() if id(module) not in inside]
    uses = Counter(id(p) for layer in found for p in layer.parameters())
    uses.update(id(p) for module in outside for p in module.parameters(recurse=False))
    return [layer for layer in found if all(uses[id(p)] == 1 for p in layer.parameters())]


def _folding(model: nn.Module) -> Iterator[tuple[str, Folding]]:
    return ((name, held) for name, held in held_tensors(model) if isinstance(held, Folding))


def _trained(model: nn.Module, head: Sequence[str]) -> list[nn.Parameter]:
    """What is whole on each rank."""
    values = {id(held.values) for _, held in _folding(model)}
    return [p for name, p in model.named_parameters() if p.requires_grad or id(p) in values or name in head]


def _move(model: nn.Module, whole: Sequence[nn.Parameter], mesh: DeviceMesh) -> None:
    """Bring to the mesh's device what FSDP leaves where it is."""
    device = torch.device(mesh.device_type)
    for _, held in _folding(model):
        held.to(device)
    for parameter in whole:
        parameter.data = parameter.data.to(device)


def _settle(model: nn.Module) -> None:
    """Let the values find the parts of their tensors, now and when they are changed."""
    owners: dict[str, Any] = {}
    for name, module in model.named_modules():
        owners[name] = module if isinstance(module, FSDPModule) else owners[name.rpartition(".")[0]]
        stacks: Any = getattr(module, "parametrizations", {})
        for stack in stacks.values():
            if isinstance(held := stack[0], Folding):
                held.settle(stack.original, owners[name])
                held.fold()
    model.register_forward_pre_hook(_fold_changed, prepend=True)  # before FSDP puts the first tensors together
    if hasattr(model, "generate"):
        register_fsdp_forward_method(model, "generate")


def _fold_changed(model: nn.Module, _: Any) -> None:
    """Called before a forward pass: values that torch has seen to change outside of an optimizer are written."""
    for _, held in _folding(model):
        held.catch_up_part()


class _Averaging:
    """Averages the gradients of what trains at the end of each backward pass."""

    def __init__(self, model: nn.Module, parameters: Sequence[nn.Parameter], mesh: DeviceMesh):
        self.model, self.parameters = ref(model), parameters
        self.group = mesh.get_group() if mesh.ndim == 1 else dist.group.WORLD
        self.is_queued = False
        for parameter in (p for p in parameters if p.requires_grad):
            parameter.register_post_accumulate_grad_hook(self._arrived)

    def _arrived(self, _: Tensor) -> None:
        if not self.is_queued:
            self.is_queued = True
            Variable._execution_engine.queue_callback(self._finish)

    def _finish(self) -> None:
        self.is_queued = False
        model = self.model()
        if model is not None and _reduces(model):
            ranks.average_gradients([p for p in self.parameters if p.requires_grad], self.group)


def _reduces(model: nn.Module) -> bool:
    """Whether gradients are to be exchanged in this pass, as `set_requires_gradient_sync` has said."""
    groups = (group for module in model.modules() if isinstance(module, FSDPModule)
              for group in module._get_fsdp_state()._fsdp_param_groups)  # fmt: skip
    return all(group.reduce_grads for group in groups)
