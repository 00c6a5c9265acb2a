"""A run's folder: its names, where its stages stand, its checkpoints, what is told to processes."""
