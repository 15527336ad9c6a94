"""The model of a bank: its tensors, what they were, and the swap of one task's entries for another's in place."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from glue_sparse.banks.loaded import Bits, Entries, Loaded, flat_bits
from glue_sparse.banks.outputs import Outputs
from glue_sparse.banks.writes import Write, write
from glue_sparse.core import support
from glue_sparse.core.digests import tensor_digest
from glue_sparse.core.parametrization import current_tensors, is_attached
from glue_sparse.core.params import head_names
from glue_sparse.core.stored import check_like
from glue_sparse.diffs import restoring
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.identity import DiffInfo

_CHANGED = "was replaced or given active entries since the bank was made: make a bank of the model as it is now"


class Base:
    """The model itself, into which tasks are written, and what is needed to have it back bit for bit.

    Args:
        model: see `TaskBank`.
    Attributes:
        digests: name -> SHA-256 of each parameter and saved buffer.
        own: name -> the base's tensor, also while a task's stands in its place.
        head: names of the parameters that a task may hold in another size.
    Raises:
        ValueError: see `TaskBank`.
    """

    def __init__(self, model: nn.Module):
        if is_attached(model):
            raise ValueError("the model has active entries of its own; call detach(model) before making a bank of it")
        support.check_model(model)
        self.model, self.head = model, head_names(model)
        tensors, parameters = current_tensors(model), {name for name, _ in model.named_parameters()}
        self.digests = {name: tensor_digest(tensor) for name, tensor in tensors.items()}
        self._modules = {name: model.get_submodule(name.rpartition(".")[0]) for name in tensors}
        self._places = {name: (module._parameters if name in parameters else module._buffers, name.rpartition(".")[2])
                        for name, module in self._modules.items()}  # fmt: skip
        self._family = [(module._modules, key, child) for module in model.modules()
                        for key, child in module._modules.items()]  # fmt: skip
        self._outputs = Outputs(model)
        self.own: dict[str, Tensor] = {}
        self._flat: dict[str, Bits] = {}
        self._seen: dict[str, int] = {}
        for name in tensors:
            self._take(name)

    @property
    def nbytes(self) -> int:
        """Of all tensors."""
        return sum(tensor.nbytes for tensor in self.own.values())

    def tensors(self, used: Loaded | None) -> dict[str, Tensor]:
        """The base's tensors; of those that have entries of the task in use, copies without them."""
        entries = used.entries if used else {}
        return {name: self._without(name, entries.get(name)) for name in self.own}

    def check(self, info: DiffInfo, shapes: Mapping[str, tuple[int, ...]], digests: Mapping[str, str]) -> None:
        """Raise a ValueError unless a diff's masked tensors are of this base; `digests` may be empty."""
        restoring.check_pooling(info, self.model)
        restoring.check_shapes(info, shapes, {name: tuple(tensor.shape) for name, tensor in self.own.items()})
        restoring.check_digests(info, digests, self.digests.__getitem__)

    def check_diff(self, diff: SparseDiff, fingerprint: bool) -> None:
        """Raise a ValueError unless all of a diff fits; a layer of the head may have another number of outputs."""
        self.check(diff.info, diff.shapes, diff.digests if fingerprint else {})
        wanted = {name: tuple(tensor.shape) for name, tensor in diff.whole.items() if not self._may_differ(name)}
        restoring.check_shapes(diff.info, wanted, {name: tuple(tensor.shape) for name, tensor in self.own.items()})
        for name, tensor in diff.whole.items():
            own = self.own[name]
            shape = (*tensor.shape[:1], *own.shape[1:]) if self._may_differ(name) else own.shape
            check_like(name, tensor, shape, own.dtype)
        if fingerprint:
            restoring.check_body(diff, self.model, self.digests)

    def check_head(self, whole: Mapping[str, Tensor]) -> None:
        """Raise a ValueError for a layer of the head whose weight and bias would have different numbers of outputs."""
        shapes = {name: (whole[name] if name in whole else self.own[name]).shape[0] for name in self._resizable}
        for name, rows in shapes.items():
            weight = f"{name.rpartition('.')[0]}.weight".lstrip(".")
            if shapes.get(weight, rows) != rows:
                raise ValueError(f"{name} would have {rows} outputs and {weight} {shapes[weight]}: a task, or the last "
                                 "one of a stack with a head, must hold both")  # fmt: skip

    def check_unchanged(self, used: Loaded | None) -> None:
        """Raise a ValueError that names the tensors that are not what the bank has left there.

        Args:
            used: the task that is in use.
        """
        entries, whole = (used.entries, used.whole) if used else ({}, {})
        wrong = [name for name in self.own if self._base_digest(name, entries.get(name)) != self.digests[name]]
        wrong += [name for name, one in entries.items() if not _holds(self._bits(name), one)]
        wrong += [name for name in whole if tensor_digest(self._tensor(name)) != (used and used.digests[name])]
        if wrong:
            names = ", ".join(dict.fromkeys(wrong[:3])) + (", ..." if len(wrong) > 3 else "")
            raise ValueError(f"{len({*wrong})} tensors are not what this bank has left in the model ({names}): load "
                             "the base again and make a new bank of it")  # fmt: skip

    def follow(self, used: Loaded | None) -> bool:
        """Find tensors again that have moved to another device, and say whether any has.

        Args:
            used: the task that is in use, whose tensors have moved along.
        Raises:
            ValueError: a tensor or module is no longer the one that it was; nothing is changed then.
        """
        for children, key, child in self._family:
            if children.get(key) is not child:
                raise ValueError(f"the module {key} {_CHANGED}")
        seen = self._seen  # at every swap, so a plain loop
        lost = [name for name, (held, attribute) in self._places.items()
                if (tensor := held.get(attribute)) is None or tensor.data_ptr() != seen[name]]  # fmt: skip
        whole = used.whole if used else {}
        for name in lost:
            tensor, known = self._tensor(name), whole.get(name, self.own[name])
            if (tensor.dtype, tensor.shape) != (known.dtype, known.shape) or tensor.is_meta:
                was, now = (f"{str(t.dtype).removeprefix('torch.')} {list(t.shape)}" for t in (known, tensor))
                raise ValueError(f"{name} was {was} in this bank and is {now} on {tensor.device} now: load the base "
                                 "again, change it as you need it, and make a bank of that")  # fmt: skip
        for name in lost:
            device = self._tensor(name).device
            if name in whole:
                self.own[name], whole[name] = self.own[name].to(device), self._tensor(name).data
                self._flat.pop(name, None)
                self._seen[name] = whole[name].data_ptr()
            else:
                self._take(name)
            if used and name in used.entries:
                used.entries[name] = used.entries[name].to(device)
        return bool(lost)

    def keep(self, new: Loaded) -> None:
        """Note what the base, of which nothing is replaced now, has at a task's positions."""
        for name, entries in new.entries.items():
            entries.kept = self._bits(name)[entries.places]
        new.is_kept = True

    def swap(self, old: Loaded | None, new: Loaded | None) -> None:
        """Write the base's values at the positions of one task, and those of another at its own.

        Tensor by tensor, so that cache lines that both touch are fetched once.
        """
        before, after = old.entries if old else {}, new.entries if new else {}
        tensors: list[list[Write]] = []
        for name, entries in before.items():
            flat = self._bits(name)
            tensors.append([(flat, entries.places, entries.kept)])
            if name in after:
                tensors[-1].append((flat, after[name].places, after[name].values))
        tensors += [
            [(self._bits(name), after[name].places, after[name].values)] for name in after if name not in before
        ]
        write(tensors)
        here = new.whole if new else {}
        for name in (old.whole.keys() if old else set()) - here.keys():
            self._point(name, self.own[name])
        for name, tensor in here.items():
            self._point(name, tensor)
        self._tell(new)
        torch.clear_autocast_cache()  # casts of what the weights were, within one block of autocast

    def _tell(self, new: Loaded | None) -> None:
        if new is None or new.head is None:
            self._outputs.show_own()
            return
        sizes = {len(tensor) for name, tensor in new.whole.items()
                 if self._may_differ(name) and tensor.shape != self.own[name].shape}  # fmt: skip
        self._outputs.show(new.head, sizes.pop() if len(sizes) == 1 else None)

    @property
    def _resizable(self) -> list[str]:
        return [name for name in self.own if self._may_differ(name)]

    def _may_differ(self, name: str) -> bool:
        return name in self.head and isinstance(self._modules[name], nn.Linear)

    def _point(self, name: str, tensor: Tensor) -> None:
        self._tensor(name).data = tensor
        self._seen[name] = tensor.data_ptr()
        module: Any = self._modules[name]
        if self._may_differ(name):
            module.out_features = len(tensor)

    def _tensor(self, name: str) -> Tensor:
        """The parameter or buffer as the model has it; a buffer that has moved is another object."""
        held, attribute = self._places[name]
        found = held.get(attribute)
        if found is None:
            raise ValueError(f"{name} {_CHANGED}")
        return found

    def _take(self, name: str) -> None:
        """Take a tensor that the model has for the base's own; flat positions need it without gaps."""
        tensor = self._tensor(name)
        if not tensor.is_contiguous():
            tensor.data = tensor.data.contiguous()
        self.own[name] = tensor.data
        self._flat.pop(name, None)
        self._seen[name] = tensor.data_ptr()

    def _bits(self, name: str) -> Bits:
        if name not in self._flat:
            self._flat[name] = flat_bits(self.own[name])
        return self._flat[name]

    def _base_digest(self, name: str, entries: Entries | None) -> str:
        """Of the base's tensor, without the entries that are in use."""
        return tensor_digest(self._without(name, entries))

    def _without(self, name: str, entries: Entries | None) -> Tensor:
        if entries is None:
            return self.own[name]
        tensor = self.own[name].clone()
        flat_bits(tensor)[entries.places] = entries.kept
        return tensor


def _holds(flat: Bits, entries: Entries) -> bool:
    return bool((flat[entries.places] == entries.values).all())
