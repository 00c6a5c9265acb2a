from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from submitit import LocalExecutor
from submitit.core.utils import DelayedSubmission

from giblet_hpc.errors import StorageError
from giblet_hpc.jobs.schedulers.sealed import MODULE, opened, sealed


class Payload:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def test_only_the_expected_bytes_are_unpickled(tmp_path: Path) -> None:
    path, mark = tmp_path / "7_submitted.pkl", tmp_path / "mark"
    data = pickle.dumps(DelayedSubmission(os.mkdir, str(mark)))
    digest = hashlib.sha256(data).hexdigest()
    path.write_bytes(data)
    assert opened(path, digest).args == (str(mark),)
    path.write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(StorageError, match=r"7_submitted.pkl, which belongs to .*was queued"):
        opened(path, digest)
    assert not mark.exists()


def start(folder: Path, digest: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", MODULE, str(folder), digest],
        env={**os.environ, "SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_JOB_ID": "7"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_job_that_was_exchanged_while_it_waited_is_not_run(tmp_path: Path) -> None:
    path, mark = tmp_path / "7_submitted.pkl", tmp_path / "mark"
    data = pickle.dumps(DelayedSubmission(os.mkdir, str(mark)))
    path.write_bytes(pickle.dumps(Payload(mark)))
    refused = start(tmp_path, hashlib.sha256(data).hexdigest())
    assert refused.returncode == 1
    assert "is not the job that was queued: nothing of it is run\nhint: " in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not mark.exists()
    path.write_bytes(data)
    assert start(tmp_path, hashlib.sha256(data).hexdigest()).returncode == 0
    assert mark.exists()


def test_each_job_has_the_digest_of_what_was_written(tmp_path: Path) -> None:
    marks = [tmp_path / "first", tmp_path / "second"]
    executor = sealed(LocalExecutor)(folder=tmp_path / "jobs")
    jobs = [executor.submit(os.mkdir, str(mark)) for mark in marks]
    for job in jobs:
        job._process.wait()
    assert all(mark.is_dir() for mark in marks)
    written = jobs[1].paths.submitted_pickle.read_bytes()
    assert executor.digests == [hashlib.sha256(written).hexdigest()]
