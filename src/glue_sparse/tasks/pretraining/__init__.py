"""Pre-training on text: masked words and next sentences."""
