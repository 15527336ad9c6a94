"""Whether what papers claim holds in our runs: computed from results, never typed by hand; loads no model."""
