"""Options by name, as literal types: what a run may be told without loading torch."""

from typing import Literal

Inactive = Literal["frozen", "zero"]
"""What an entry holds that is not active: the value it had, or zero."""


Norm = Literal["l1", "l2", "linf"]
"""How entries make the score of their tile: sum of magnitudes, root of the sum of squares, or largest magnitude."""


Initial = Literal["truncated_normal", "glorot"]


Entrants = Literal["mean", "zero"]
"""What an entrant's mean squared gradient starts from: the mean of the survivors', or zero as all its other state."""
