"""`python -m giblet_hpc.cli` is `giblet-hpc`."""

from giblet_hpc.cli.main import main

main(prog_name="giblet-hpc")
