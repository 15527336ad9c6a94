"""What a run costs: trainable entries, their state while training, and bytes on disk."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from glue_sparse.core.active import ActiveEntries
from glue_sparse.core.parametrization import held_tensors, original, wholly_active


@dataclass(frozen=True)
class Cost:
    """Counts of a model with active entries attached."""

    num_entries: int
    """All entries of the model."""
    active_entries: int
    """Active entries of masked tensors."""
    whole_entries: int
    """Entries of tensors that train whole (the head; everything, for dense training)."""
    masked_entries: int
    """All entries of masked tensors."""
    zero_entries: int
    """Inactive entries that hold zero."""
    stored_bytes: int
    """Size of the saved diff; 0 until it is saved."""
    left_entries: int = 0
    """Entries that were active for a while and keep what they learnt; they no longer train."""
    state_bytes: int | None = None
    """Size of the optimizer's state, of one process; none where nothing was counted."""

    @property
    def trainable(self) -> int:
        """Entries that an optimizer updates."""
        return self.active_entries + self.whole_entries

    @property
    def density(self) -> float:
        """Trainable fraction of the model."""
        return self.trainable / self.num_entries


    @property
    def sparsity(self) -> float:
        """Share of the masked tensors that is pruned: what papers about pruning call sparsity."""
        return self.zero_entries / self.masked_entries if self.masked_entries else 0.0

    @property
    def model_sparsity(self) -> float:
        """Share of the whole model that is pruned."""
        return self.zero_entries / self.num_entries


def as_facts(cost: Cost) -> dict[str, Any]:
    """The counts, and what follows from them, for results.json, without what was not counted."""
    derived = ("trainable", "density", "sparsity", "model_sparsity")
    facts = {**asdict(cost), **{name: getattr(cost, name) for name in derived}}
    return {name: fact for name, fact in facts.items() if fact is not None}


def state_bytes(optimizer: Optimizer) -> int:
    """What an optimizer keeps beside the weights, such as Adam's moments: bytes of all tensors of its state."""
    kept = [value for state in optimizer.state.values() for value in state.values()]
    return sum(value.nbytes for value in kept if isinstance(value, Tensor))


def cost_of(model: nn.Module, stored_bytes: int = 0) -> Cost:
    """Counts entries; each active one is also one parameter of the optimizer, so it is not counted twice."""
    apart = {id(p) for _, part in held_tensors(model) for p in part.parameters()}
    whole = sum(parameter.numel() for parameter in wholly_active(model).values())
    everything = sum(p.numel() for p in model.parameters() if id(p) not in apart)
    masked = [(part, original(model, name).numel()) for name, part in held_tensors(model)]
    return Cost(
        num_entries=everything,
        active_entries=sum(part.num_active for part, _ in masked),
        whole_entries=whole,
        masked_entries=sum(size for _, size in masked),
        zero_entries=sum(size - part.num_active for part, size in masked if part.inactive == "zero"),
        stored_bytes=stored_bytes,
        left_entries=sum(
            part.num_explored - part.num_active
            for part, _ in masked
            if isinstance(part, ActiveEntries) and part.inactive == "frozen"
        ),
    )
