"""Checkpoints in: where they come from, how they are loaded, their tokenizer, head and precision."""

import logging

# It says at import that a kernel of the Hub could be fetched; nothing is fetched here, and nobody needs to be told.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
