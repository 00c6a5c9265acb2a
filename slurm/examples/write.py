#!/usr/bin/env python3
"""Write the example scripts beside this file, as the launcher makes them.

python slurm/examples/write.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from giblet_hpc.jobs import profiles
from giblet_hpc.jobs.record.resources import spread
from giblet_hpc.jobs.schedulers import registry
from giblet_hpc.jobs.submit.plan import plan
from giblet_hpc.jobs.submit.submission import Submission
from giblet_hpc.runs.paths import STAGES, RunPaths
from giblet_hpc.subjects import PreprocessPart

HERE = Path(__file__).parent
PARTS = (
    PreprocessPart("subject-01", wants_gpu=False),
    PreprocessPart("run1-video", wants_gpu=False),
    PreprocessPart("run1-audio", wants_gpu=True),
)


def scripts() -> Iterator[tuple[str, str]]:
    """Yield each job's file name and script."""
    profile = profiles.load(HERE.parent / "clusters" / "a100-infiniband.yaml")
    size = spread(profile, gpus=8, ranks=None, nodes=None)
    paths = RunPaths(Path("/lab/runs/movie"))
    for stage in STAGES:
        jobs = plan(paths, (stage,), profile=profile, size=size, parts=PARTS)
        submission = Submission(paths, profile, jobs)
        ids = [f"JOB-{number}" for number in range(1, len(jobs) + 1)]
        for number, job in enumerate(jobs, start=1):
            order = submission.order(job, ids)
            script = registry.of(profile.scheduler).script(profile, order)
            name = f"{stage}-{number}.sbatch" if len(jobs) > 1 else f"{stage}.sbatch"
            yield name, script.replace(sys.executable, "/opt/python")


def main() -> None:
    """Write one file for each job."""
    for name, script in scripts():
        (HERE / name).write_text(script)


if __name__ == "__main__":
    main()
