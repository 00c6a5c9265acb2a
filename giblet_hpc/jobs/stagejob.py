"""What a scheduler runs on each node: a run's stages, one after the other."""

from __future__ import annotations

import os
from dataclasses import dataclass

from giblet_hpc.jobs import attempts
from giblet_hpc.runs import Stage


@dataclass(frozen=True)
class StageJob:
    """A run's stages, until one does not finish.

    Holds plain values only, so that it can be pickled without importing anything heavy.

    Parameters
    ----------
    run_folder : str
    stages : tuple of str
    ranks : int
        Processes of train and evaluate on each node.
    nodes : int
    part : str
        For preprocess: the one part to make.
    rebuild : bool
        For preprocess: replace parts made with other settings.
    lease : str
        Token of the lease that the submission took.
    minutes : int
        Walltime of the job; 0 for no end.
    gpus : int
        GPUs asked for on each node.
    cuda_devices : str, optional
        The submitter's CUDA_VISIBLE_DEVICES, which submitit's local executor replaces.
    """

    run_folder: str
    stages: tuple[Stage, ...]
    ranks: int
    nodes: int = 1
    part: str = ""
    rebuild: bool = False
    lease: str = ""
    minutes: int = 0
    gpus: int = 0
    cuda_devices: str | None = None

    def __call__(self) -> int:
        """Run the stages; return 0 when all are complete.

        Raises
        ------
        SystemExit
            With code 1, in a Slurm job whose stages are not complete: jobs that depend on it must
            not start.
        """
        # Who submits pickles this class, and needs nothing of what runs it.
        from giblet_hpc.jobs.supervisor import run_stages

        place = attempts.here()
        if place.scheduler == "local":
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            if self.cuda_devices is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = self.cuda_devices
        code = run_stages(self, place)
        if code and place.scheduler == "slurm":
            raise SystemExit(code)
        return code
