"""What a run costs: trainable entries, their state while training, and bytes on disk."""

from dataclasses import dataclass

from torch import nn

from glue_sparse.parametrization import held_tensors, wholly_active


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
    held = [part for _, part in held_tensors(model)]
    apart = {id(p) for part in held for p in part.parameters()}
    whole = sum(parameter.numel() for parameter in wholly_active(model).values())
    everything = sum(p.numel() for p in model.parameters() if id(p) not in apart)
    return Cost(everything, sum(part.num_active for part in held), whole, stored_bytes)
