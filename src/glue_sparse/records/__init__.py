"""What a run leaves: results.json, its folder, and published numbers. May import arguments and writing."""
