"""CPU seconds of the commands that people wait for. Usage: python benchmarks/command_line.py"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

REPEATS = 11
ROOT = Path(__file__).parents[1]


def cpu_seconds(*arguments: str, folder: str) -> float:
    """Return the user and system seconds of one call of Python."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "GIBLET_RUNS": folder, "GIBLET_CLUSTER": "local"},
        stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    """Print the median and the range of each command."""
    with tempfile.TemporaryDirectory() as folder:
        from giblet_hpc.config import io as config_io
        from giblet_hpc.runs.paths import RunPaths

        config = config_io.load(ROOT / "configs" / "demo.yaml", ())
        RunPaths(Path(folder) / "demo").create(config)
        ours = ("-m", "giblet_hpc.cli")
        for arguments in (
            ("-c", "pass"), ("-c", "import click"), (*ours, "--help"), (*ours, "status"),
            (*ours, "status", "demo"), (*ours, "submit", "--help"),
        ):  # fmt: skip
            times = [cpu_seconds(*arguments, folder=folder) for _ in range(REPEATS)]
            sys.stdout.write(
                f"python {' '.join(arguments):32} median {statistics.median(times):.3f} s, "
                f"{min(times):.3f} to {max(times):.3f} s of CPU\n"
            )


if __name__ == "__main__":
    main()
