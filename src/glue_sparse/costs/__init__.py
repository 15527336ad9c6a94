"""What a run costs: entries, bytes, FLOPs. May import core and writing."""
