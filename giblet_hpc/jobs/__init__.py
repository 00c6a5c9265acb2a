"""Everything outside the container; light imports only."""
