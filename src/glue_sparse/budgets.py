"""How many entries may be active. Budgets are integers and are met exactly."""


def total(density: float, num_entries: int, num_head: int) -> int:
    """Body entries to choose so that body and head together are `density` of the model (FISH mask, section 4).

    The head is new for the task, so it is always trained whole and its size is charged to the budget:
    `int(density * num_entries) - num_head`, as in the authors' code.

    Args:
        density: active fraction of all entries, in (0, 1].
        num_entries: entries of the whole model, head included.
        num_head: entries of the head.
    Raises:
        ValueError: density out of range, or the head alone uses up the budget.
    """
    if not 0 < density <= 1:
        raise ValueError(f"density must be in (0, 1], got {density}")
    budget = int(density * num_entries)
    if budget <= num_head:
        raise ValueError(
            f"density {density} allows {budget:,} of {num_entries:,} entries, but the head alone has {num_head:,}: "
            f"use a density above {num_head / num_entries:.3g}, a smaller head, or name fewer head parameters"
        )
    return budget - num_head
