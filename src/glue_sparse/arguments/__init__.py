"""What a run is told: flags with their facts, and the command line. May import core and writing."""
