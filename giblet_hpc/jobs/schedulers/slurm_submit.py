"""Queueing on Slurm through submitit: the script, its options, the job's id."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from giblet_hpc.errors import JobError
from giblet_hpc.jobs.schedulers.base import Order
from giblet_hpc.jobs.schedulers.sealed import sealed
from giblet_hpc.jobs.schedulers.slurm_commands import own_job_id
from giblet_hpc.runs.environment import SAFE_PATH

if TYPE_CHECKING:
    from giblet_hpc.config.cluster import Cluster

UNLIMITED = 10**6
USERS_OWN = frozenset({
    "SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT", "SLURM_JWT",
    "SLURM_BITSTR_LEN", "SLURM_EXIT_ERROR", "SLURM_DEBUG_FLAGS",
})  # fmt: skip
"""Variables that a user sets for Slurm's commands; Slurm sets the others inside jobs."""


def submit(profile: Cluster, order: Order) -> list[str]:
    """Queue an order; return the id of each of its works.

    Raises
    ------
    JobError
        With what sbatch says, when it refuses.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    order.submissions.mkdir(parents=True, exist_ok=True)
    executor = _executor(profile, order)
    try:
        with _outside_of_jobs(), executor.batch(allow_implicit_submissions=False):
            queued = [executor.submit(work) for work in order.works]
        return [str(job.job_id) for job in queued]
    except (FailedJobError, FailedSubmissionError, FileNotFoundError) as error:
        lines = [line for line in str(error).splitlines() if "sbatch" in line]
        said = lines[-1] if lines else str(error)
        raise JobError(
            f"Slurm did not take the job: {said}", hint="`--dry-run` shows the script"
        ) from None


def script(profile: Cluster, order: Order) -> str:
    """Return the sbatch script of an order, as `submit` sends it."""
    executor = _executor(profile, order)
    if len(order.works) > 1:
        executor.parameters["map_count"] = len(order.works)
    text: str = executor._make_submission_file_text(executor._submitit_command_str, "")
    return text.rstrip() + "\n"


def parameters(profile: Cluster, order: Order) -> dict[str, Any]:
    """Return submitit's parameters of an order."""
    work = order.works[0]
    run = os.path.basename(work.run_folder)  # noqa: PTH119 - the folder need not exist here
    wanted: dict[str, Any] = {
        "job_name": safe_name(f"giblet-{run}-{work.title}"),
        "time": order.minutes,
        "nodes": order.nodes,
        "ntasks_per_node": 1,
        "cpus_per_task": order.cpus,
        "signal_delay_s": profile.lead_seconds,
        "stderr_to_stdout": True,
        "array_parallelism": profile.array_tasks,
        "setup": [f"export {SAFE_PATH}=1", *profile.setup],
        "teardown": [shlex.join(order.epilogue)] if order.epilogue else None,
        "partition": order.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "dependency": dependency(order) or None,
        "exclude": ",".join(order.exclude) or None,
        # Supervisors end each other themselves, and need a while to say why.
        "srun_args": [f"--cpus-per-task={order.cpus}", "--kill-on-bad-exit=0", "--wait=0"],
        "additional_parameters": {
            "requeue" if order.epilogue else "no-requeue": True,
            "kill-on-invalid-dep": "yes",
            **profile.options,
        },
    }
    if order.memory_gb:
        wanted["mem"] = f"{int(order.memory_gb * 1024)}M"
    if order.gpus:
        amount = f"{profile.gpu_type}:{order.gpus}" if profile.gpu_type else str(order.gpus)
        key = "gres" if profile.gpu_request == "gres" else "gpus_per_node"
        wanted[key] = f"gpu:{amount}" if key == "gres" else amount
    # Sites that check wckeys refuse submitit's default one.
    return {key: value for key, value in wanted.items() if value is not None} | {"wckey": None}


def dependency(order: Order) -> str:
    """Return sbatch's --dependency; empty for none.

    Examples
    --------
    >>> from types import SimpleNamespace as Order
    >>> dependency(Order(after=[("success", "7"), ("end", "8"), ("end", "9")]))
    'afterok:7,afterany:8:9'
    """
    words = {"success": "afterok", "end": "afterany", "task": "aftercorr"}
    kinds: dict[str, list[str]] = {}
    for wait, job in order.after:
        kinds.setdefault(words[wait], []).append(job)
    return ",".join(":".join([word, *jobs]) for word, jobs in kinds.items())


def safe_name(text: str) -> str:
    """Return a job name that needs no quoting anywhere."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:64]


def submitted_id(said: str) -> str:
    """Return the id in what sbatch says: its last line that names a job, after any greeting.

    Raises
    ------
    JobError
        When there is none.
    """
    found = re.findall(r"^(?:Submitted batch job )?(\d+)(?:;\S+| on cluster \S+)?$", said, re.M)
    if not found:
        raise JobError(f"sbatch named no job: {said.strip()}")
    return str(found[-1])


def _executor(profile: Cluster, order: Order) -> Any:
    """Return submitit's executor; it can also write a script where there is no Slurm."""
    import submitit

    class Executor(submitit.SlurmExecutor):  # type: ignore[misc]
        """Slurm's executor, without the check for srun, that reads the id from the last line."""

        @classmethod
        def affinity(cls) -> int:
            return 2

        @staticmethod
        def _get_job_id_from_submission_command(string: bytes | str) -> str:
            return submitted_id(string if isinstance(string, str) else string.decode())

    executor = sealed(Executor)(folder=order.submissions, max_num_timeout=UNLIMITED)
    executor.update_parameters(**parameters(profile, order))
    return executor


@contextlib.contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Hide what Slurm sets inside jobs, which would reach the new job's srun as options."""
    inside = bool(own_job_id(os.environ))
    hidden = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if inside and name.startswith("SLURM") and name not in USERS_OWN
    }
    try:
        yield
    finally:
        os.environ.update(hidden)
