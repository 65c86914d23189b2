"""What leaves a run: predictions, merged checkpoints."""
