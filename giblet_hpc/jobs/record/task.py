"""What one job does of a run: plain values, so that it can be pickled and recorded."""

from __future__ import annotations

from dataclasses import dataclass

from giblet_hpc.jobs.record.resources import Resources
from giblet_hpc.runs.paths import Stage


@dataclass(frozen=True)
class StageTask:
    """A run's stages, one after the other, until one does not finish.

    Parameters
    ----------
    run_folder : str
    stages : tuple of str
    resources : Resources
        What the job has.
    part : str
        For preprocess: the one part to make.
    rebuild : bool
        For preprocess: replace arrays made with other settings.
    lease : str
        Token of the lease that the submission took.
    cuda_devices : str, optional
        The submitter's CUDA_VISIBLE_DEVICES, which submitit's local executor replaces.
    """

    run_folder: str
    stages: tuple[Stage, ...]
    resources: Resources
    part: str = ""
    rebuild: bool = False
    lease: str = ""
    cuda_devices: str | None = None

    @property
    def title(self) -> str:
        """The stages, for the job's name."""
        return "-".join(self.stages)
