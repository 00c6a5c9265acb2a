"""`python -m giblet_hpc.cli` is `giblet-hpc`."""

from giblet_hpc.cli import main

main(prog_name="giblet-hpc")
