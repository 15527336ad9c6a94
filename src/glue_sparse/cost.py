"""What a run costs: trainable entries, their state while training, and bytes on disk."""

from dataclasses import dataclass

from torch import nn

from glue_sparse.active import active_tensors
from glue_sparse.parametrization import wholly_active


@dataclass(frozen=True)
class Cost:
    """Counts of a model with active entries attached."""

    num_entries: int
    """All entries of the model."""
    active_entries: int
    """Active entries of masked tensors."""
    whole_entries: int
    """Entries of tensors that train whole (the head; everything, for dense training)."""
    stored_bytes: int
    """Size of the saved diff; 0 until it is saved."""

    @property
    def trainable(self) -> int:
        """Entries that an optimizer updates."""
        return self.active_entries + self.whole_entries

    @property
    def density(self) -> float:
        """Trainable fraction of the model."""
        return self.trainable / self.num_entries


def cost_of(model: nn.Module, stored_bytes: int = 0) -> Cost:
    """Counts entries; each active one is also one parameter of the optimizer, so it is not counted twice."""
    active = {id(entries.values): entries.values.numel() for _, entries in active_tensors(model)}
    whole = sum(parameter.numel() for parameter in wholly_active(model).values())
    everything = sum(p.numel() for p in model.parameters() if id(p) not in active)
    return Cost(everything, sum(active.values()), whole, stored_bytes)
