"""Where the entries of a model's tensors lie in its checkpoint, which may have other names and parts.

transformers converts some architectures as it loads them, experts of a mixture into one tensor for instance, and
reverts that as it saves (`core_model_loading.revert_weight_conversion`). Nothing here knows an architecture: tensors of
positions are reverted in the place of weights, and where each position has gone is read off.
"""

from collections.abc import Iterable, Iterator
from math import prod
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from transformers.core_model_loading import revert_weight_conversion

from glue_sparse.core.names import block_of
from glue_sparse.core.parametrization import current_tensors
from glue_sparse.writing.sentences import sentence
from glue_sparse.writing.words import listed

_TOGETHER = "\0"
"""Before the name of a block, in the place of names that the checkpoint has."""
_WAY_OUT = "apply the diff, and hand on the folder of the merged model"


class Place(NamedTuple):
    """One tensor of a checkpoint.

    Attributes:
        name: in the checkpoint.
        shape: there.
        positions: [entries] of its entries, in order: where each lies in its sources, laid flat one behind the other.
    """

    name: str
    shape: tuple[int, ...]
    positions: Tensor


class Layout:
    """How a model that is stored in another form than it has in memory is stored.

    Attributes:
        shapes: of the model's tensors, of tied ones under the first name.
        groups: names of those that are converted together, each name once, and the checkpoint's names for them.
    """

    def __init__(self, model: PreTrainedModel):
        """Of a model on any device, `meta` too.

        Raises:
            ValueError: its conversion cannot be followed.
        """
        self._model = model
        self.shapes = {name: tuple(one.shape) for name, one in current_tensors(model).items()}
        self._stored = {name: tuple(one.shape) for name, one in self._reverted(self._empty(self.shapes)).items()}
        self.groups = self._grouped()

    def places(self, group: tuple[str, ...]) -> Iterator[Place]:
        """The checkpoint's tensors that hold a group; in memory are its positions, 4 bytes each, or 8 from 2^31 on.

        Raises:
            ValueError: the conversion does more than to move entries.
        """
        sizes = [prod(self.shapes[name]) for name in group]
        numbers = torch.arange(sum(sizes), dtype=torch.int32 if sum(sizes) < 2**31 else torch.int64)
        parts = zip(group, numbers.split(sizes), strict=True)
        found = self._reverted({name: part.view(self.shapes[name]) for name, part in parts})
        seen = torch.zeros(len(numbers), dtype=torch.bool)
        for name, positions in found.items():
            if self._stored.get(name) != tuple(positions.shape) or positions.dtype != numbers.dtype:
                raise ValueError(f"what {listed(group)} are stored as cannot be followed: {_WAY_OUT}")
            flat = positions.reshape(-1).long()
            seen[flat[(flat >= 0) & (flat < len(seen))]] = True
        if not seen.all() or sum(one.numel() for one in found.values()) != len(numbers):
            raise ValueError(f"{listed(group)} are not stored entry by entry: {_WAY_OUT}")
        for name, positions in found.items():
            yield Place(name, tuple(positions.shape), positions.reshape(-1))

    def _grouped(self) -> dict[tuple[str, ...], set[str]]:
        """Tensors that go into one of the checkpoint are of a group; so are those of a block that go nowhere alone."""
        groups: list[tuple[set[str], set[str]]] = []
        for name in self.shapes:
            try:
                targets = {*self._reverted(self._empty((name,)))}
            except ValueError:
                targets = {f"{_TOGETHER}{block_of(name)}"}
            met = [one for one in groups if one[1] & targets]
            groups = [one for one in groups if one not in met]
            groups.append((set().union({name}, *(one[0] for one in met)), targets.union(*(one[1] for one in met))))
        order = {name: number for number, name in enumerate(self.shapes)}
        found = {tuple(sorted(names, key=order.__getitem__)): targets for names, targets in groups}
        return {names: {*self._reverted(self._empty(names))} if any(one.startswith(_TOGETHER) for one in targets)
                else targets for names, targets in found.items()}  # fmt: skip

    def _empty(self, names: Iterable[str]) -> dict[str, Tensor]:
        return {name: torch.empty(self.shapes[name], device="meta") for name in names}

    def _reverted(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        try:
            return revert_weight_conversion(self._model, tensors)
        except Exception as error:  # of any conversion, each of which may ask for its own
            reason = sentence(next(iter(str(error).splitlines()), ""), 90)
            raise ValueError(f"the form in which {type(self._model).__name__} is stored cannot be followed: {_WAY_OUT} "
                             f"({reason})") from error  # fmt: skip


def layout_of(model: PreTrainedModel) -> Layout | None:
    """How a model is stored; none where just as it is in memory. Raises as `Layout` does."""
    probe: dict[str, Tensor] = {}
    return None if revert_weight_conversion(model, probe) is probe else Layout(model)


def layout_by(config: dict[str, Any]) -> Layout | None:
    """The same by what config.json says, without any weights; none also where that names no class of transformers."""
    kind = getattr(transformers, str((config.get("architectures") or [""])[0]), None)
    if kind is None or not converts(kind.__name__):
        return None
    with torch.device("meta"):
        return layout_of(kind._from_config(kind.config_class.from_dict(config)))


def converts(model_class: str) -> bool:
    """Whether models of a class may be stored in another form than they have in memory; by names alone."""
    kind = getattr(transformers, model_class, None)
    config = getattr(kind, "config_class", None)
    if config is None:
        return False
    types = [*_types(config)]
    return None in types or any(get_checkpoint_conversion_mapping(name) for name in (model_class, *types))


def _types(config: type[PretrainedConfig]) -> Iterator[str | None]:
    """Types of a model and those inside it; None for one that only a configuration of its own says."""
    yield None if config is AutoConfig else config.model_type
    for inner in getattr(config, "sub_configs", {}).values():
        yield from _types(inner)
