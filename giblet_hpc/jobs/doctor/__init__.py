"""Findings about node, storage, network and image; on the login node and as a job."""
