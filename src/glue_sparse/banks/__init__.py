"""Many tasks beside one base: their diffs swapped in and out, and rows of several tasks in one batch."""
