"""Networks that are sparse from the start, and whose active entries move."""
