"""What an algorithm decides. Knows no task, and no flag but in its registry. May import scores, costs, diffs, core."""
