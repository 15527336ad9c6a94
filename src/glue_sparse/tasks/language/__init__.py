"""Decoders on text of one's own: conversations and answers (`sft`), and plain text (`causal_lm`)."""
