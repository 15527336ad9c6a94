"""Active entries of a model's tensors: held compactly, trained by any optimizer, moved by `reindex`."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from glue_sparse.core import operators, sampled, support, tiles
from glue_sparse.core.chosen import Chosen, count_of, mask_of, narrow, places_of, shape_of, without
from glue_sparse.core.digests import tensor_digest
from glue_sparse.core.folding import Folding
from glue_sparse.core.masks import Masks
from glue_sparse.core.options import Inactive
from glue_sparse.core.parametrization import (
    Entries,
    T,
    frozen_tensors,
    held_tensors,
    install,
    is_attached,
    read_entries,
    write_entries,
)
from glue_sparse.core.watching import Watching


class ActiveEntries(Watching, Folding):
    """Parametrization of one tensor whose active entries are the only ones that train.

    The tensor itself needs no gradient. `values` is what an optimizer sees: float32 whatever the tensor's type, so
    small updates survive a bfloat16 base. Inactive entries stay bit-identical because nothing ever writes them.

    Attributes:
        shape, dtype: of the tensor.
        values: [k] float32 parameter.
        places: [k] sorted flat positions, int32 where they fit. Not a buffer: buffers are sent at every step under DDP.
        indices: the same as int64, made when it is read.
        inactive: what an inactive entry holds, its old value (`frozen`) or `zero`.
        block_size: side of the square tiles that are active as a whole.
        explored: entries that have been active so far, a bool tensor of the weight's shape; none before the first move.
        base_values: [k] of the tensor's type, what the base has at the active positions; none once these have moved.
    """

    explored: Tensor | None = None

    def __init__(self, weight: Tensor, indices: Tensor, inactive: Inactive, block_size: int = 1):
        super().__init__()
        self.inactive: Inactive = inactive
        self.block_size = block_size
        self.base_digest = tensor_digest(weight)
        self.shape, self.dtype = weight.shape, weight.dtype
        self._derived: dict[Callable[..., Any], Any] = {}
        self._place(indices.to(weight.device))
        self.base_values = weight.detach().reshape(-1).index_select(0, self.places)  # which needs no int64
        values = self.base_values.to(torch.float32, copy=True)
        self.values = nn.Parameter(values, requires_grad=len(values) > 0)
        if inactive == "zero":
            _zero_except(weight, self.indices)
        self.settle(weight)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight, which holds the current values; same shape, type and storage (not in `torch.func`)."""
        if operators.is_transformed():
            values = self.values.to(weight.dtype)
            return weight.detach().flatten().index_put((self.indices,), values).view(self.shape)
        self.catch_up(weight)
        if not len(self.places):
            return weight
        return sampled.Gather.apply(self.values, self.places, weight, self._token)  # pyright: ignore[reportReturnType]

    @property
    def indices(self) -> Tensor:
        """See `Entries.indices`."""
        return self.places.long()

    @property
    def num_active(self) -> int:
        """See `Parametrization.num_active`."""
        return len(self.places)

    @property
    def may_train(self) -> bool:
        """See `Parametrization.may_train`; without an active entry there is nothing to freeze."""
        return self.values.requires_grad or not len(self.places)

    def current(self, weight: Tensor) -> Tensor:
        """See `Parametrization.current`."""
        self.write(weight)
        return weight.detach()

    def installed(self, module: nn.Module, attribute: str) -> None:
        """See `Parametrization.installed`."""
        sampled.install(module, attribute, self)

    def keep(self, make: Callable[[Entries], Any]) -> None:
        """See `Entries.keep`; layers have here what they arrange by the active positions.

        It is made when positions change, not when it is first read: torch.compile would take that into its graph.
        """
        if make not in self._derived:
            self._derived[make] = make(self)

    def derived(self, make: Callable[[Entries], T]) -> T:
        """See `Entries.derived`."""
        return self._derived[make]

    def _place(self, indices: Tensor) -> None:
        """Hold these positions, and what layers derive from them."""
        self.places: Tensor = narrow(indices, self.shape.numel())
        self._derived = {make: make(self) for make in self._derived}

    def move(self, indices: Tensor, values: Tensor) -> None:
        """Make other entries the active ones; `values` stays the same parameter.

        Raises:
            ValueError: they do not form whole tiles; nothing is changed then.
        """
        if self.block_size > 1:
            tiles.gathered(mask_of(indices, self.shape), self.block_size)
        if self.explored is None:
            self.explored = self.mask()
        may_train, self.base_values = self.may_train, None
        self._place(indices)
        self.explored.view(-1)[indices] = True
        if values.shape != self.values.shape:
            # A graph that is still alive holds the node that adds up gradients, and the node remembers the old size;
            # autograd makes a new one when the type changes.
            self.values.data = values.double()
        self.values.data, self.values.grad = values, None
        self.values.requires_grad_(may_train and len(indices) > 0)

    def mask(self) -> Tensor:
        """The active entries as a bool tensor of the weight's shape."""
        return mask_of(self.places, self.shape)

    @property
    def num_explored(self) -> int:
        """Entries that have been active so far."""
        return self.num_active if self.explored is None else int(self.explored.sum())

    def fill_state(self, state: dict[str, Any], prefix: str, full: Tensor) -> None:
        """See `Parametrization.fill_state`: what a tensor has at the active positions are its values."""
        found = state.setdefault(f"{prefix}_extra_state", self.get_extra_state())
        state.setdefault(f"{prefix}values", read_entries(full, found.to(full.device)).float())

    def get_extra_state(self) -> Tensor:
        """Flat positions of the active entries, for `state_dict`; explored ones are no part of it."""
        return self.indices.cpu()  # int64, as ever

    def set_extra_state(self, state: Tensor) -> None:
        """Nothing to do: `_load_from_state_dict` has read it, since the size of `values` depends on it."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        stored = state_dict.get(f"{prefix}_extra_state")
        if stored is not None and not torch.equal(stored.cpu(), self.indices.cpu()):
            indices = stored.to(self.indices.device)
            self.move(indices, torch.zeros(len(indices), device=indices.device))
            self.explored = None  # that was of other weights
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _apply(self, fn, recurse: bool = True):
        super()._apply(fn, recurse)
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=self.places.device)).dtype
        self._place(_moved(fn, self.places))
        self.explored = None if self.explored is None else _moved(fn, self.explored)
        self.base_values = None if self.base_values is None else fn(self.base_values)
        return self

    def extra_repr(self) -> str:
        size = f", block_size={self.block_size}" if self.block_size > 1 else ""
        return f"{len(self.places):,} active, inactive={self.inactive}{size}"


def _moved(fn: Callable[[Tensor], Tensor], positions: Tensor) -> Tensor:
    """As `fn` gives it, but never cast: `model.type(torch.bfloat16)` would round positions."""
    found = fn(positions)
    return found if found.dtype == positions.dtype else positions.to(found.device)


def _zero_except(tensor: Tensor, indices: Tensor) -> None:
    kept = read_entries(tensor, indices)
    tensor.data.zero_()
    write_entries(tensor, indices, kept)


def attach(model: nn.Module, masks: Masks, inactive: Inactive = "frozen", block_size: int = 1) -> None:
    """From here on only active entries of the masked tensors train, and all of every tensor without a mask.

    What is frozen (`requires_grad=False`) stays as it is, with or without a mask, and needs no gradient afterwards.

    Args:
        model: any module; changed in place. Tied tensors share one set of values.
        masks: parameter name -> bool tensor of its shape.
        inactive: what inactive entries hold: `frozen`, the value they have, or `zero`, which overwrites them now.
        block_size: side of the square tiles that the masks are made of. Linear layers whose inactive entries are
            zero compute with active tiles alone where that was measured to be faster.
    Raises:
        ValueError: already attached, an unknown name, a wrong shape, a mask that is not made of whole tiles or that
            would change a frozen tensor, or a model whose parameters are not plain whole tensors; nothing is changed.
    """
    if is_attached(model):
        raise ValueError("this model already has active entries; call detach(model) first")
    support.check_model(model)
    parameters = dict(model.named_parameters())
    for name in masks:
        if name not in parameters:
            raise ValueError(f"the mask names {name}, which the model does not have")
        shape = shape_of(masks, name)
        if shape != parameters[name].shape:
            raise ValueError(f"the mask of {name} is {tuple(shape)}, the tensor {tuple(parameters[name].shape)}")
        if not parameters[name].is_floating_point():
            raise ValueError(f"{name} holds {parameters[name].dtype}, and active entries are real numbers: leave its "
                             "mask out")  # fmt: skip
        tiles.check(name, shape, block_size)
        if block_size > 1:
            tiles.gathered(masks[name], block_size)
    masks = without_frozen(model, masks, inactive)
    install(model, {name: lambda weight, n=name: ActiveEntries(weight, places_of(masks, n), inactive, block_size)
                    for name in masks})  # fmt: skip


def without_frozen(model: nn.Module, masks: Masks, inactive: Inactive = "frozen") -> Masks:
    """Masks of the tensors that may train; those of frozen ones ask for nothing, and go.

    Raises:
        ValueError: a mask would train entries of a frozen tensor, or overwrite them with zero.
    """
    frozen = frozen_tensors(model)
    for name in masks:
        if name in frozen and (count_of(masks, name) or inactive == "zero"):
            what = "active entries" if count_of(masks, name) else "zeros"
            raise ValueError(f"the mask of {name} asks for {what}, but that tensor is frozen: call "
                             "requires_grad_(True) on it, or leave its mask out")  # fmt: skip
    return without(masks, {*frozen})


def active_tensors(model: nn.Module) -> Iterator[tuple[str, ActiveEntries]]:
    """(original parameter name, its active entries), in model order, tied tensors once."""
    return ((name, held) for name, held in held_tensors(model) if isinstance(held, ActiveEntries))


def current_masks(model: nn.Module) -> Masks:
    """Masks of an attached model, on its device."""
    masks = Chosen()
    for name, entries in active_tensors(model):
        masks.hold(name, entries.indices, entries.shape)
    return masks
