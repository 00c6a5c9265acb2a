"""giblet-hpc: multimodal encoding models of naturalistic-movie fMRI on HPC schedulers."""

__version__ = "0.1.0"
