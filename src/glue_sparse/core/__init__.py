"""Some entries of a tensor are active: masks, budgets, what holds them, and the fast layers. Knows no method."""
