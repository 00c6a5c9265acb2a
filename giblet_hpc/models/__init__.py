"""The networks: `dense` (the original) and `temporal` (the default), and what goes through them."""
