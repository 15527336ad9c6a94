"""The Trainer on active entries. May import methods, diffs, costs, records, arguments, core and writing."""
