"""The one training loop and the one scoring loop. Knows inputs, their lengths and logits; never text."""
