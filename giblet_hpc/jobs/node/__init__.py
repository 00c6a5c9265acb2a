"""What runs on a node outside the container: supervisor, watch, image, triage, epilogue."""
