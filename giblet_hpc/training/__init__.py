"""Training: data, losses, schedule, the loop, checkpoints, process groups."""
