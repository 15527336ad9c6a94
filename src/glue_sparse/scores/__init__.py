"""What an entry is worth. May import core and writing."""
