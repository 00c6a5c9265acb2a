"""Messages of NCCL's, byte for byte, and what is made of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from giblet_hpc import nccl
from giblet_hpc.causes import search
from giblet_hpc.jobs.node import triage
from giblet_hpc.jobs.record.attempts import begin
from giblet_hpc.jobs.schedulers.base import Place
from giblet_hpc.runs.environment import ATTEMPT
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.stages.__main__ import reporting

# As torch 2.9 and NCCL 2.27.5 build it: the first raw byte is at offset 336.
GARBLED = (
    b"NCCL error in: /pytorch/torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:3690, unhandled "
    b"system error (run with NCCL_DEBUG=INFO for details), NCCL version 2.27.5\n"
    b"ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device "
    b"error. \nLast error:\n"
    b"Error while attaching to shared memory segment /dev/shm/nccl-"
    b"\xc0\x8a\x07\xff\x12 (size 9637888)"
)


def garbled() -> UnicodeDecodeError:
    with pytest.raises(UnicodeDecodeError) as caught:
        GARBLED.decode()
    return caught.value


def test_the_error_is_the_one_that_was_reported() -> None:
    assert (
        str(garbled()) == "'utf-8' codec can't decode byte 0xc0 in position 336: invalid start byte"
    )


def test_the_hidden_message_is_shown_with_cause_and_remedy() -> None:
    with pytest.raises(nccl.NcclError) as caught, nccl.readable():
        raise garbled()
    text = str(caught.value)
    assert "one got a memory handle where it expected the name of a file" in text
    assert r"attaching to shared memory segment /dev/shm/nccl-\xc0\x8a" in text
    assert "NCCL version 2.27.5" in text
    assert caught.value.hint.startswith("set NCCL_CUMEM_HOST_ENABLE=0 for every rank")


def test_other_undecodable_bytes_are_left_alone() -> None:
    with pytest.raises(UnicodeDecodeError), nccl.readable():
        b"na\xefve".decode()


def test_an_unknown_message_is_shown_too() -> None:
    error = UnicodeDecodeError("utf-8", b"NCCL error: something \xff new", 22, 23, "invalid")
    found = nccl.decode(error)
    assert found is not None
    assert r"something \xff new" in str(found)
    assert "NCCL_DEBUG=INFO" in found.hint


RECORDED = [
    (
        "Error while creating shared memory segment /dev/shm/nccl-Vt7HkX (size 33030528), error: No "
        "space left on device (28)",
        "/dev/shm) is full",
    ),
    (
        "ncclInvalidUsage: This usually reflects invalid usage of NCCL library.\nLast error:\n"
        "Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 3b000",
        "two ranks use the same GPU",
    ),
    ("ncclInternalError: Internal check failed.\nLast error:\nBootstrap : no socket interface found",
     "no network interface"),
    ("ncclSystemError: System call failed.\nLast error:\nCall to ibv_reg_mr_iova2 failed with error "
     "Cannot allocate memory", "may not lock memory"),
    ("ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 2 'out of "
     "memory'", "out of GPU memory inside NCCL"),
    ("ncclRemoteError: A call failed possibly due to a network error or a remote process exiting "
     "prematurely.\nLast error:\nNET/IB : remote process exited or there was a network error",
     "another rank ended first"),
    ("ncclInvalidUsage\nLast error:\nFailed to initialize any NET plugin", "the network plugin"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), RECORDED)
def test_recorded_messages(text: str, reason: str) -> None:
    cause = search.explain(f"[Rank 0] NCCL error in: ProcessGroupNCCL.cpp:3690\n{text}")
    assert cause is not None
    assert reason in cause.reason
    assert cause.remedy


def test_the_attempt_ends_with_the_explanation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the exception in a rank to the sentence that `status` shows."""
    paths = RunPaths(tmp_path / "run")
    paths.root.mkdir()
    attempt = begin(paths, Place("local", "7", 0), "train", {"nodes": 1})
    monkeypatch.setenv(ATTEMPT, str(attempt.folder))
    with pytest.raises(nccl.NcclError), reporting(paths, "train", 3):
        raise garbled()
    assert json.loads((attempt.folder / "rank-3.json").read_text())["kind"] == "error"
    verdict = triage.diagnose(attempt, {"status": "running"}, asked=False)
    assert verdict.outcome == "crashed"
    assert "rank 3 on " in verdict.reason
    assert "memory handle" in verdict.reason
    assert "NCCL_CUMEM_HOST_ENABLE=0" in verdict.hint
