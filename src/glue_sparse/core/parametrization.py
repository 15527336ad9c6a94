"""What stands before a tensor and holds the part of it that trains: put there, found, read and taken away."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from glue_sparse.core import plain_keys, shards, support
from glue_sparse.core.digests import tensor_digest
from glue_sparse.core.options import Inactive


class Parametrization(nn.Module):
    """Base of what stands before a tensor and holds the part of it that trains; the tensor needs no gradient."""

    inactive: Inactive = "frozen"
    """What an entry holds that does not train: the value it had, or zero."""
    base_digest: str
    """SHA-256 of the tensor before anything was written to it."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """As in any module, but what trains keeps at least float32: a model in half precision is the base alone."""

        def moved(tensor: Tensor) -> Tensor:
            found = fn(tensor)
            is_half = found.is_floating_point() and found.itemsize < torch.float32.itemsize
            return tensor.to(found.device) if is_half and found.dtype != tensor.dtype else found

        return super()._apply(moved, recurse)

    @property
    def may_train(self) -> bool:
        """Whether nobody has frozen what trains since it was put there."""
        return all(parameter.requires_grad for parameter in self.parameters())

    @property
    def num_active(self) -> int:
        """Entries of the tensor that train."""
        raise NotImplementedError

    def current(self, weight: Tensor) -> Tensor:
        """The full tensor as the model uses it now, without a gradient; may be `weight` itself, written to."""
        raise NotImplementedError

    def installed(self, module: nn.Module, attribute: str) -> None:
        """Called when it has been put before `module.attribute`."""

    def fill_state(self, state: dict[str, Any], prefix: str, full: Tensor) -> None:
        """Add to a `state_dict` what it lacks of this part and the full tensor says; keys begin with `prefix`."""


T = TypeVar("T")


class Entries(Protocol):
    """Active entries of one tensor, as the faster insides of layers see them."""

    @property
    def indices(self) -> Tensor:
        """[k] int64, sorted flat positions."""
        ...

    @property
    def places(self) -> Tensor:
        """[k] the same as they are held, int32 where they fit."""
        ...

    @property
    def values(self) -> Tensor:
        """[k] float32."""
        ...

    @property
    def shape(self) -> torch.Size:
        """Of the tensor."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of the tensor."""
        ...

    @property
    def inactive(self) -> Inactive:
        """What the other entries hold."""
        ...

    @property
    def block_size(self) -> int:
        """Side of the square tiles that are active as a whole."""
        ...

    @property
    def is_watched(self) -> bool:
        """Whether the gradient of the whole tensor is wanted."""
        ...

    @property
    def is_sharded(self) -> bool:
        """Whether the tensor is shared out over ranks, so that what a forward pass sees is a copy."""
        ...

    def catch_up(self, weight: Tensor) -> None:
        """Write the values into their tensor, unless it has them."""

    def keep(self, make: "Callable[[Entries], Any]") -> None:
        """Have ready what `make` gives for these positions, and from now on for each set of them."""
        ...

    def derived(self, make: "Callable[[Entries], T]") -> T:
        """What `make` gives for these positions; it is one that was given to `keep`."""
        ...


def install(model: nn.Module, builders: Mapping[str, Callable[[Tensor], Parametrization]]) -> None:
    """Put a parametrization before each named tensor, built from the tensor; tied tensors share one.

    Raises:
        ValueError: a model that cannot have any (see `support.check_model`), or a tensor that is frozen; nothing is
            changed then.
    """
    support.check_model(model)
    if frozen := sorted(builders.keys() & frozen_tensors(model).keys()):
        raise ValueError(f"{frozen[0]} is frozen, so no entry of it may train: call requires_grad_(True) on it, or "
                         "leave it out")  # fmt: skip
    parameters, owners = dict(model.named_parameters()), _owners(model)
    for name in [name for name in parameters if name in builders]:  # in model order, which optimizers number by
        weight, build = parameters[name], builders[name]
        weight.data = weight.data.contiguous()
        weight.requires_grad_(False)
        weight.grad = None
        parametrization = build(weight)
        for module, attribute in owners[name]:
            parametrize.register_parametrization(module, attribute, parametrization, unsafe=True)
            plain_keys.install(module)
            parametrization.installed(module, attribute)
    plain_keys.leave_out(model)


def detach(model: nn.Module) -> None:
    """Write what has trained into the tensors and leave a plain model with its original names.

    Args:
        model: what `attach` or `sparsify_model` changed, or a plain model, which stays as it is; changed in place.
    Raises:
        ValueError: another parametrization was put before a tensor after its active entries, or the model is sharded;
            nothing is changed then.
    """
    _check_alone(model)
    for name, held in list(held_tensors(model)):
        weight = original(model, name)
        weight.data = held.current(weight)
    release(model)


def release(model: nn.Module) -> None:
    """Leave a plain model with its original names and the tensors as they are behind their parametrizations.

    Raises:
        ValueError: as `detach`.
    """
    _check_alone(model)
    plain_keys.leave_out_no_more(model)
    for name, held in list(held_tensors(model)):
        original(model, name).requires_grad_(held.may_train)
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            assert isinstance(module.parametrizations, nn.ModuleDict)
            for attribute, stack in list(module.parametrizations.items()):
                if isinstance(stack, parametrize.ParametrizationList) and isinstance(stack[0], Parametrization):
                    _own_class(module)
                    parametrize.remove_parametrizations(module, attribute, leave_parametrized=False)


def _check_alone(model: nn.Module) -> None:
    """Removal takes all parametrizations of a tensor away, those of others too, and needs the tensor whole."""
    if any(shards.is_part(parameter) for parameter in model.parameters()):
        raise ValueError("this model is shared out over ranks, so that it cannot become a plain one: save its diff, "
                         "SparseDiff.from_model(model), and apply that to the base")  # fmt: skip
    for name, module in model.named_modules():
        stacks: Any = module.parametrizations if parametrize.is_parametrized(module) else {}
        for attribute, stack in stacks.items():
            if isinstance(stack[0], Parametrization) and len(stack) > 1:
                raise ValueError(f"{f'{name}.{attribute}'.lstrip('.')} was given another parametrization after its "
                                 "active entries: remove that one first")  # fmt: skip


def _own_class(module: nn.Module) -> None:
    """Give a parametrized module a class that no copy of it shares: removal deletes the tensor's name from there."""
    kind = type(module)
    own = {key: value for key, value in vars(kind).items() if key not in ("__dict__", "__weakref__")}
    module.__class__ = type(kind.__name__, kind.__bases__, own)  # pyright: ignore[reportAttributeAccessIssue]


def held_tensors(model: nn.Module) -> Iterator[tuple[str, Parametrization]]:
    """(original parameter name, what holds the trained part of it), in model order, tied tensors once."""
    seen: set[int] = set()
    for module_name, module in model.named_modules():
        if not parametrize.is_parametrized(module):
            continue
        assert isinstance(module.parametrizations, nn.ModuleDict)
        for attribute, stack in module.parametrizations.items():
            held = stack[0] if isinstance(stack, parametrize.ParametrizationList) else None
            if isinstance(held, Parametrization) and id(held) not in seen:
                seen.add(id(held))
                yield f"{module_name}.{attribute}".lstrip("."), held


def is_attached(model: nn.Module) -> bool:
    """Whether any tensor of the model has active entries, or gates, of its own."""
    return next(held_tensors(model), None) is not None


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
    for name, held in held_tensors(model):
        weight = original(model, name)
        tensors[name] = held.current(weight)
        hidden |= {id(weight), *map(id, held.parameters())}
    plain = {name: p for name, p in model.named_parameters() if id(p) not in hidden}
    return {**tensors, **plain, **persistent_buffers(model)}


def persistent_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Buffers that `state_dict` saves."""
    passing = {
        f"{path}.{name}".lstrip(".") for path, module in model.named_modules(remove_duplicate=False)
        for name in module._non_persistent_buffers_set
    }  # fmt: skip
    return {name: buffer for name, buffer in model.named_buffers() if name not in passing}


def wholly_active(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that train whole: those without a mask that require a gradient (the head, usually)."""
    compact = {id(p) for _, held in held_tensors(model) for p in held.parameters()}
    return {n: p for n, p in model.named_parameters() if p.requires_grad and id(p) not in compact}


def frozen_tensors(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that the user froze: those that hold no active entries and require no gradient."""
    hidden: set[int] = set()
    for name, held in held_tensors(model):
        hidden |= {id(original(model, name)), *map(id, held.parameters())}
    return {n: p for n, p in model.named_parameters() if not p.requires_grad and id(p) not in hidden}


def read_entries(tensor: Tensor, indices: Tensor) -> Tensor:
    """[k] entries of a tensor at sorted flat positions, without a gradient; of a part, what all ranks find together."""
    return shards.read(tensor, indices)


def write_entries(tensor: Tensor, indices: Tensor, values: Tensor) -> None:
    """Write [k] `values` at flat positions in place, behind autograd's back (it may have saved the tensor)."""
    shards.write(tensor, indices, values.detach())


def model_digest(model: nn.Module, head: tuple[str, ...], digests: Mapping[str, str] | None = None) -> str:
    """SHA-256 of all parameters but the head's, by name: two models with the same one are the same base.

    Args:
        digests: of all tensors, where they are known.
    """
    tensors, sha = current_tensors(model), hashlib.sha256()
    for name in sorted(tensors.keys() - {*head, *persistent_buffers(model)}):
        sha.update(f"{name} {tensor_digest(tensors[name]) if digests is None else digests[name]}\n".encode())
    return sha.hexdigest()


def _owners(model: nn.Module) -> dict[str, list[tuple[nn.Module, str]]]:
    """Name of each parameter -> all (module, attribute) that hold it; more than one where tensors are tied."""
    owners: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for attribute, parameter in module.named_parameters(recurse=False):
            owners.setdefault(id(parameter), []).append((module, attribute))
    return {name: owners[id(parameter)] for name, parameter in model.named_parameters()}
