"""The three jobs of a run: preprocess, train, evaluate. `python -m giblet_hpc.stages STAGE RUN`."""

from pathlib import Path

WEIGHTS = Path("/opt/weights")
"""Where an image may carry models, as a cache of the Hugging Face hub."""
