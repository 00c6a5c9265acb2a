"""The three jobs of a run: preprocess, train, evaluate. `python -m giblet_hpc.stages STAGE RUN`."""
