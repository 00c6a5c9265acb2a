"""What a scheduler calls on each node of a job."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from giblet_hpc.jobs.node.supervisor import run_stages
from giblet_hpc.jobs.record.task import StageTask
from giblet_hpc.jobs.schedulers import registry
from giblet_hpc.trust import require_mine


@dataclass(frozen=True)
class RunStages:
    """Runs a task's stages on the node that this is called on.

    Parameters
    ----------
    task : StageTask
    """

    task: StageTask

    @property
    def run_folder(self) -> str:
        """Folder of the run."""
        return self.task.run_folder

    @property
    def title(self) -> str:
        """The stages, for the job's name."""
        return self.task.title

    def __call__(self) -> int:
        """Run the stages; return 0 when all are complete.

        Raises
        ------
        SystemExit
            With code 1, in a job whose stages are not complete: jobs that depend on it must not
            start.
        ConfigError
            When the run's folder is another user's by now.
        """
        folder = Path(self.run_folder)
        require_mine(folder, what=f"run {folder.name}")
        place = registry.here()
        queued = registry.of(place.scheduler).queues
        if not queued:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            if self.task.cuda_devices is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = self.task.cuda_devices
        code = run_stages(self.task, place)
        if code and queued:
            raise SystemExit(code)
        return code
