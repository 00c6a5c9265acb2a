"""The networks: `dense` (the original) and `temporal` (the default)."""
