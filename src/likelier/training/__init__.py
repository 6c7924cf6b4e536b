"""The loop, the step, the optimiser, checkpoints, and what is said on the way."""
