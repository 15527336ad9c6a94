"""Words, tables as text, files written whole, and how a command ends. Imports nothing of ours, and no torch."""
