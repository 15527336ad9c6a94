"""What a run produces: a diff, its file, deltas, and the ordinary model. May import core and writing."""
