"""SQuAD v1.1: answers that are pieces of a paragraph."""
