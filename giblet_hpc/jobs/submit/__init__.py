"""What a run still needs, as a graph of jobs, and handing that to a scheduler."""
