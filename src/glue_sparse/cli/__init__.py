"""The command line: one file per sub-command. May import anything; nobody imports it."""
