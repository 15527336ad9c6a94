"""Many tasks beside one base: their diffs, swapped in and out in place. May import diffs, core and writing."""
