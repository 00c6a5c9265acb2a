"""What is recorded of a run's jobs: resources, lease, attempts, provenance, excluded nodes."""
