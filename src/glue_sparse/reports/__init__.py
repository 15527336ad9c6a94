"""Tables and figures from records. Loads no model."""
