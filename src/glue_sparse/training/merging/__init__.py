"""Workers that train apart and add their updates."""
