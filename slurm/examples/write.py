#!/usr/bin/env python3
"""Write the example scripts beside this file, as the launcher makes them.

python slurm/examples/write.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from giblet_hpc.jobs import profiles

from giblet_hpc.jobs.submit import plan as queueing
from giblet_hpc.jobs.record.resources import size_of
from giblet_hpc.runs.paths import STAGES, RunPaths

HERE = Path(__file__).parent


def scripts() -> Iterator[tuple[str, str]]:
    """Yield each job's file name and script."""
    profile = cluster.load(HERE.parent / "clusters" / "a100-infiniband.yaml")
    size = size_of(profile, gpus=8, ranks=None, nodes=None, default=1)
    paths = RunPaths(Path("/lab/runs/movie"))
    for stage in STAGES:
        steps = queueing.steps_of(
            paths,
            (stage,),
            profile=profile,
            size=size,
            parts=("subject-01", "run1-video"),
            time=None,
        )
        for number, step in enumerate(steps, start=1):
            script = queueing.script(profile, step.order(""))
            name = f"{stage}-{number}.sbatch" if len(steps) > 1 else f"{stage}.sbatch"
            yield name, script.replace(sys.executable, "/opt/python")


def main() -> None:
    """Write one file for each job."""
    for name, script in scripts():
        (HERE / name).write_text(script)


if __name__ == "__main__":
    main()
