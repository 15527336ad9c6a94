"""What a diff changes in its base, arranged for batches whose rows belong to several tasks."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from glue_sparse.core.patterns import announced
from glue_sparse.diffs import restoring
from glue_sparse.diffs.diff import SparseDiff


class CannotMix(ValueError):
    """Rows of several tasks cannot go through this model together; a loop over the tasks can do it."""


@dataclass(frozen=True, eq=False)
class Changed:
    """Entries of one tensor: [k] sorted flat positions, int64, and [k] new values in the tensor's type."""

    positions: Tensor
    values: Tensor

    def of_rows(self, rows: Tensor, width: int) -> "Changed":
        """The entries in some rows of a matrix with so many columns; [n] sorted row numbers, each once."""
        first = torch.searchsorted(self.positions, rows * width)
        count = torch.searchsorted(self.positions, (rows + 1) * width) - first
        before = count.cumsum(0) - count
        found = torch.repeat_interleave(first - before, count)
        found += torch.arange(len(found), device=found.device)
        return Changed(self.positions[found], self.values[found])


@dataclass(frozen=True, eq=False)
class Corrections:
    """What one task changes, on the base's device and in its types; made by `MixedForward.prepare`.

    Attributes:
        changed: parameter name -> its entries that differ from the base.
        whole: name -> the task's tensor, of those that the diff holds whole and that differ from the base's, and of
            those with so many changed entries that their positions would take more memory.
    """

    changed: Mapping[str, Changed]
    whole: Mapping[str, Tensor]
    _matrices: dict[str, Tensor] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.changed or name in self.whole

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept for the task; more once sparse products have been asked for."""
        parts = [t for one in self.changed.values() for t in (one.positions, one.values)]
        csr = [t for m in [*self._matrices.values()] for t in (m.crow_indices(), m.col_indices(), m.values())]
        return sum(t.nbytes for t in (*parts, *csr, *self.whole.values()))

    def difference(self, name: str, weight: Tensor, inputs_first: bool) -> Tensor:
        """[outputs, inputs] float32 CSR, new values less those of the base, which `weight` holds; made once.

        Args:
            inputs_first: the weight is stored as [inputs, outputs].
        """
        if name not in self._matrices:
            self._matrices[name] = _csr(self.changed[name], weight, inputs_first)
        return self._matrices[name]


def _csr(changed: Changed, weight: Tensor, inputs_first: bool) -> Tensor:
    places, shape = changed.positions, weight.shape
    values = changed.values.float() - weight.detach().view(-1)[places].float()
    rows, columns = places // shape[1], places % shape[1]
    if inputs_first:
        rows, columns, shape = columns, rows, shape[::-1]
        order = rows.argsort(stable=True)
        rows, columns, values = rows[order], columns[order], values[order]
    starts = torch.zeros(shape[0] + 1, dtype=torch.int32, device=rows.device)
    starts[1:] = torch.bincount(rows, minlength=shape[0]).cumsum(0)
    announced()
    return torch.sparse_csr_tensor(starts, columns.int(), values, tuple(shape), check_invariants=False)


def corrections_of(diff: SparseDiff, tensors: Mapping[str, Tensor], linear: Mapping[str, nn.Linear]) -> Corrections:
    """What a diff changes in a model's tensors.

    Args:
        tensors: name -> tensor of the base.
        linear: name of a tensor that one `nn.Linear` alone holds -> the layer; its outputs may be more or fewer.
    Raises:
        CannotMix: inactive entries are zero, or a tensor with changed entries is not contiguous.
        ValueError: the diff is of another model.
    """
    if diff.info.inactive == "zero":
        raise CannotMix("inactive entries of this diff are zero, so that it changes the whole of each tensor: use "
                        "one task at a time")  # fmt: skip
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    stored = {name: tuple(tensor.shape) for name, tensor in diff.whole.items()}
    for name in stored.keys() & linear.keys():  # may have more or fewer outputs
        stored[name] = (*shapes[name][:1], *stored[name][1:])
    restoring.check_shapes(diff.info, {**{name: diff.shapes[name] for name in diff.indices}, **stored}, shapes)
    changed, whole = {}, {}
    for name, positions in diff.indices.items():
        weight = tensors[name]
        if not weight.is_contiguous():
            raise CannotMix(f"{name} is not contiguous: use one task at a time")
        places = positions.long().to(weight.device)
        new = diff.values[name].to(weight.device, weight.dtype)
        differs = new != weight.detach().view(-1)[places]
        found = Changed(places[differs], new[differs])
        if found.positions.nbytes + found.values.nbytes > weight.nbytes:
            whole[name] = weight.detach().view(-1).index_copy(0, found.positions, found.values).view(weight.shape)
        elif differs.any():
            changed[name] = found
    for name, tensor in diff.whole.items():
        base = tensors[name]
        new = tensor.to(base.device, base.dtype)
        if not torch.equal(new, base):
            whole[name] = new
    return Corrections(changed, whole)
