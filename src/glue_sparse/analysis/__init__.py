"""Numbers about models, masks and curves. Never imports arguments."""
