"""Checkpoints in: where they come from, how they are loaded, their tokenizer, head and precision."""
