"""Active entries of a model's tensors: held compactly, trained by any optimizer, the only code that writes weights."""

import hashlib
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from glue_sparse import sampled
from glue_sparse.masks import Masks

Inactive = Literal["frozen", "zero"]

_SECOND_MOMENTS = ("exp_avg_sq", "max_exp_avg_sq", "square_avg")
"""Means of squared gradients, by which Adam and its kin divide."""


class _Gather(torch.autograd.Function):
    """Hands a weight on in the forward pass; the gradient of `values` is the dense one read at `indices`."""

    @staticmethod
    def forward(ctx, values: Tensor, indices: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(indices)
        ctx.dtype = values.dtype
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (indices,) = ctx.saved_tensors
        return read_entries(grad_outputs[0], indices).to(ctx.dtype), None, None


class ActiveEntries(nn.Module):
    """Parametrization of one tensor whose active entries are the only ones that train.

    The tensor itself needs no gradient. `values` is what an optimizer sees: float32 whatever the tensor's type, so
    small updates survive a bfloat16 base. Inactive entries stay bit-identical because nothing ever writes them.

    Attributes:
        values: [k] float32 parameter.
        indices: [k] int64, sorted flat positions. Not a buffer: buffers are sent at every step under DDP.
        inactive: what an inactive entry holds, its old value (`frozen`) or `zero`.
        base_digest: SHA-256 of the tensor before anything was written to it.
    """

    def __init__(self, weight: Tensor, mask: Tensor, inactive: Inactive):
        super().__init__()
        self.inactive: Inactive = inactive
        self.base_digest = tensor_digest(weight)
        self.indices = mask.to(weight.device).flatten().nonzero().squeeze(1)
        self._pattern: Tensor | None = None
        values = read_entries(weight, self.indices).float()
        self.values = nn.Parameter(values, requires_grad=len(values) > 0)
        if inactive == "zero":
            _zero_except(weight, self.indices)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with the current values written into it; same shape, type and storage."""
        self.write(weight)
        return _Gather.apply(self.values, self.indices, weight) if len(self.indices) else weight

    def write(self, weight: Tensor) -> None:
        """Write the values into their tensor. Always: an optimizer need not bump the version of what it changes."""
        write_entries(weight, self.indices, self.values)

    def pattern(self, shape: torch.Size) -> Tensor:
        """The active places of a matrix in CSR form, built once per set of indices."""
        if self._pattern is None:
            self._pattern = sampled.pattern_of(self.indices, shape)
        return self._pattern

    def move(self, indices: Tensor, values: Tensor) -> None:
        """Make other entries the active ones; `values` stays the same parameter."""
        self.indices, self._pattern = indices, None
        self.values.data, self.values.grad = values, None
        self.values.requires_grad_(len(indices) > 0)

    def _apply(self, fn, recurse: bool = True):
        super()._apply(fn, recurse)
        self.indices, self._pattern = fn(self.indices), None
        return self

    def __getstate__(self) -> dict[str, Any]:
        """For copies, which rebuild the pattern: torch cannot copy a sparse tensor in CSR form."""
        return {**self.__dict__, "_pattern": None}

    def extra_repr(self) -> str:
        return f"{len(self.indices):,} active, inactive={self.inactive}"


def read_entries(tensor: Tensor, indices: Tensor) -> Tensor:
    """[k] entries of a tensor at flat `indices`, without a gradient."""
    dense = tensor.detach()
    return (dense.to_dense() if dense.is_sparse else dense).reshape(-1)[indices]


def write_entries(tensor: Tensor, indices: Tensor, values: Tensor) -> None:
    """Write [k] `values` at flat `indices` in place, behind autograd's back (it may have saved the tensor)."""
    tensor.data.view(-1)[indices] = values.detach().to(tensor.device, tensor.dtype)


def _zero_except(tensor: Tensor, indices: Tensor) -> None:
    kept = read_entries(tensor, indices)
    tensor.data.zero_()
    write_entries(tensor, indices, kept)


def tensor_digest(tensor: Tensor) -> str:
    """SHA-256 of a tensor's type, shape and bytes."""
    cpu = tensor.detach().cpu().contiguous()
    sha = hashlib.sha256(f"{cpu.dtype}{tuple(cpu.shape)}".encode())
    if cpu.numel():
        sha.update(cpu.view(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _owners(model: nn.Module) -> dict[str, list[tuple[nn.Module, str]]]:
    """Name of each parameter -> all (module, attribute) that hold it; more than one where tensors are tied."""
    owners: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for attribute, parameter in module.named_parameters(recurse=False):
            owners.setdefault(id(parameter), []).append((module, attribute))
    return {name: owners[id(parameter)] for name, parameter in model.named_parameters()}


def attach(model: nn.Module, masks: Masks, inactive: Inactive = "frozen") -> None:
    """From here on only active entries of the masked tensors train, and all of every tensor without a mask.

    Args:
        model: any module; changed in place. Tied tensors share one set of values.
        masks: parameter name -> bool tensor of its shape.
        inactive: what inactive entries hold. `zero` overwrites them now.
    Raises:
        ValueError: already attached, an unknown name or a wrong shape; nothing is changed then.
    """
    if is_attached(model):
        raise ValueError("this model already has active entries; call detach(model) first")
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        if name not in parameters:
            raise ValueError(f"the mask names {name}, which the model does not have")
        if mask.shape != parameters[name].shape:
            raise ValueError(f"the mask of {name} is {tuple(mask.shape)}, the tensor {tuple(parameters[name].shape)}")
    owners = _owners(model)
    for name, mask in masks.items():
        weight = parameters[name]
        weight.data = weight.data.contiguous()
        weight.requires_grad_(False)
        weight.grad = None
        entries = ActiveEntries(weight, mask, inactive)
        for module, attribute in owners[name]:
            parametrize.register_parametrization(module, attribute, entries, unsafe=True)
            sampled.install(module, attribute)


def detach(model: nn.Module) -> None:
    """Write the values into the tensors and leave a plain model with its original names."""
    for name, entries in list(active_tensors(model)):
        weight = original(model, name)
        entries.write(weight)
        weight.requires_grad_(True)
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            assert isinstance(module.parametrizations, nn.ModuleDict)
            for attribute, stack in list(module.parametrizations.items()):
                if isinstance(stack, parametrize.ParametrizationList) and isinstance(stack[0], ActiveEntries):
                    parametrize.remove_parametrizations(module, attribute, leave_parametrized=False)


def active_tensors(model: nn.Module) -> Iterator[tuple[str, ActiveEntries]]:
    """(original parameter name, its active entries), in model order, tied tensors once."""
    seen: set[int] = set()
    for module_name, module in model.named_modules():
        if not parametrize.is_parametrized(module):
            continue
        assert isinstance(module.parametrizations, nn.ModuleDict)
        for attribute, stack in module.parametrizations.items():
            entries = stack[0] if isinstance(stack, parametrize.ParametrizationList) else None
            if isinstance(entries, ActiveEntries) and id(entries) not in seen:
                seen.add(id(entries))
                yield f"{module_name}.{attribute}".lstrip("."), entries


def is_attached(model: nn.Module) -> bool:
    """Whether any tensor of the model has active entries of its own."""
    return next(active_tensors(model), None) is not None


def original(model: nn.Module, name: str) -> Tensor:
    """The full tensor behind a masked parameter, or the parameter itself where it has no mask."""
    module_name, _, attribute = name.rpartition(".")
    module = model.get_submodule(module_name)
    if parametrize.is_parametrized(module, attribute):
        assert isinstance(module.parametrizations, nn.ModuleDict)
        stack = module.parametrizations[attribute]
        assert isinstance(stack, parametrize.ParametrizationList) and isinstance(stack.original, Tensor)
        return stack.original
    return module.get_parameter(attribute)


def current_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What a plain model saves: original name -> full tensor with the current values written into it."""
    tensors: dict[str, Tensor] = {}
    hidden: set[int] = set()
    for name, entries in active_tensors(model):
        tensors[name] = original(model, name)
        entries.write(tensors[name])
        hidden |= {id(entries.values), id(tensors[name])}
    plain = {name: p for name, p in model.named_parameters() if id(p) not in hidden}
    return {**tensors, **plain, **persistent_buffers(model)}


def persistent_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Buffers that `state_dict` saves."""
    saved = model.state_dict(keep_vars=True)
    return {name: buffer for name, buffer in model.named_buffers() if name in saved}


def current_masks(model: nn.Module) -> Masks:
    """Masks of an attached model, on its device."""
    masks = {}
    for name, entries in active_tensors(model):
        masks[name] = torch.zeros_like(original(model, name), dtype=torch.bool)
        masks[name].view(-1)[entries.indices] = True
    return masks


def wholly_active(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that train whole: those without a mask that require a gradient (the head, usually)."""
    compact = {id(entries.values) for _, entries in active_tensors(model)}
    return {n: p for n, p in model.named_parameters() if p.requires_grad and id(p) not in compact}


def reindex(model: nn.Module, masks: Masks, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Change which entries of attached tensors are active, between optimizer steps.

    An entrant starts from what the tensor holds, with optimizer state zero; a survivor keeps value and state; a
    leaver keeps its last value (`frozen`) or becomes zero (`zero`), and its state is dropped. Mean squared gradients
    of an entrant start at the survivors' mean: Adam counts steps per tensor, so zero would make the entrant's first
    steps up to 6.5 times as long as its learning rate.

    Args:
        masks: new masks of any of the attached tensors.
        optimizer: the optimizer that holds the values; its state is re-mapped, and values that had no active entry
            before join the first group.
    Raises:
        ValueError: a tensor that is not attached, or a wrong shape; nothing is changed then.
    """
    attached = dict(active_tensors(model))
    for name, mask in masks.items():
        if name not in attached:
            raise ValueError(f"{name} has no active entries to change")
        if mask.shape != original(model, name).shape:
            raise ValueError(f"the mask of {name} is {tuple(mask.shape)}, not {tuple(original(model, name).shape)}")
    for name, mask in masks.items():
        _reindex_one(attached[name], original(model, name), mask, optimizer)


def _reindex_one(
    entries: ActiveEntries, weight: Tensor, mask: Tensor, optimizer: torch.optim.Optimizer | None
) -> None:
    entries.write(weight)
    old, new = entries.indices, mask.to(weight.device).flatten().nonzero().squeeze(1)
    is_old, is_new = torch.isin(new, old), torch.isin(old, new)
    if entries.inactive == "zero":
        write_entries(weight, old[~is_new], torch.zeros((), device=weight.device))
    values = read_entries(weight, new).float()
    values[is_old] = entries.values.detach()[is_new]
    entries.move(new, values)
    if optimizer is None:
        return
    if not is_old.any():
        optimizer.state.pop(entries.values, None)  # nothing to carry over: a fresh start, step count included
    for key, state in optimizer.state.get(entries.values, {}).items():
        if isinstance(state, Tensor) and state.shape == old.shape and state.dim() == 1:
            moved = state.new_zeros(len(new))
            if key in _SECOND_MOMENTS:
                moved.fill_(state[is_new].mean())
            moved[is_old] = state[is_new]
            optimizer.state[entries.values][key] = moved
    if len(new) and not any(entries.values is p for group in optimizer.param_groups for p in group["params"]):
        optimizer.param_groups[0]["params"].append(entries.values)
