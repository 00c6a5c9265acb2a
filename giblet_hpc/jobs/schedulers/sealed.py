"""How submitit's pickle of a job reaches its nodes: with its digest in the job's own command.

submitit leaves the pickle in the run's folder and unpickles what lies there when the job starts,
which may be days later. Who could exchange the file could run code as the job's user. The command
is kept by the scheduler, out of reach: a job unpickles only bytes with the digest that it names.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from giblet_hpc.errors import GibletError, StorageError
from giblet_hpc.trust import owner, read_bytes

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

MODULE = "giblet_hpc.jobs.schedulers.sealed"
"""What the first process of a job on each node runs, by which it is known."""
WAIT_SECONDS = 60
"""How long a job waits for its pickle, which is put into place once its id is known."""


def sealed(executor: type[Any]) -> type[Any]:
    """Return a class of submitit's executors, whose jobs unpickle only what it has pickled."""

    class Sealed(executor):  # type: ignore[misc]
        """Queues pickles with their digests."""

        def _internal_process_submissions(self, delayed_submissions: list[Any]) -> Any:
            self.digests: list[str] = []
            wanted = [_recorded(delayed, self.digests) for delayed in delayed_submissions]
            return super()._internal_process_submissions(wanted)

        @property
        def _submitit_command_str(self) -> str:
            command: str = super()._submitit_command_str
            replaced = command.replace("-m submitit.core._submit", f"-P -m {MODULE}")
            assert replaced != command
            # Where nothing is queued, the script that is shown has a word in their place.
            return " ".join([replaced, *(getattr(self, "digests", None) or ["SHA256"])])

    return Sealed


def _recorded(delayed: DelayedSubmission, digests: list[str]) -> DelayedSubmission:
    """Return a submission that notes the digest of what it writes."""
    from submitit.core.utils import DelayedSubmission

    class Recorded(DelayedSubmission):  # type: ignore[misc]
        """Writes another submission."""

        def dump(self, filepath: str | Path) -> None:
            delayed.set_timeout(self._timeout_min, self._timeout_countdown)
            data = pickle.dumps(delayed)
            Path(filepath).write_bytes(data)
            digests.append(hashlib.sha256(data).hexdigest())

    return Recorded(delayed.function)


def opened(path: Path, digest: str) -> DelayedSubmission:
    """Return the submission in a file, which is unpickled only if it is the expected one.

    Raises
    ------
    StorageError
        When it has another digest.
    """
    data = read_bytes(path)
    if hashlib.sha256(data).hexdigest() != digest:
        raise StorageError(
            f"{path}, which belongs to {owner(path)}, is not the job that was queued: "
            "nothing of it is run",
            hint="see who can write to its folder, then: giblet-hpc resubmit",
        )
    submission: DelayedSubmission = pickle.loads(data)  # noqa: S301 - its digest is checked
    return submission


def main(arguments: list[str]) -> None:
    """Run a job on this node: its folder of submissions, and a digest for each task of an array."""
    from submitit import JobEnvironment

    folder, *digests = arguments
    os.environ["SUBMITIT_FOLDER"] = folder
    environment = JobEnvironment()
    path = Path(environment.paths.submitted_pickle)
    number = int(environment.array_task_id or 0)
    for _ in range(WAIT_SECONDS):
        if path.exists():
            break
        time.sleep(1)
    submission = opened(path, digests[number])
    environment._handle_signals(environment.paths, submission)
    submission.result()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except GibletError as error:
        sys.exit(f"error: {error}\nhint: {error.hint}" if error.hint else f"error: {error}")
