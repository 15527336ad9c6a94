"""Where networks come from. May import diffs, core and writing."""
