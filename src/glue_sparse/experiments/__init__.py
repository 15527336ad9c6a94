"""One run, and many: settings, grids, cells, and what runs them."""
