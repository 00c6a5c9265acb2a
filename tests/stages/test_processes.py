"""What a stage's processes leave when they fail, and what they refuse to start on."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from giblet_hpc.errors import ConfigError, NodeError
from giblet_hpc.jobs.node import start, triage
from giblet_hpc.jobs.record.attempts import Attempt
from giblet_hpc.runs import environment
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.stages import __main__ as entry
from giblet_hpc.stages import torchrun


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attempt:
    folder = tmp_path / "attempts" / "1"
    folder.mkdir(parents=True)
    monkeypatch.setenv(environment.ATTEMPT, str(folder))
    monkeypatch.setenv(environment.NODE, "1")
    monkeypatch.setenv(environment.HOST, "gpu007")
    return Attempt(folder)


def failure(rank: int, code: int, seconds: float) -> ProcessFailure:
    made = ProcessFailure(local_rank=rank, pid=100 + rank, exitcode=code, error_file="none")
    made.timestamp = 1000 + seconds
    return made


def test_a_killed_rank_is_the_cause_of_one_that_lost_its_connection(attempt: Attempt) -> None:
    """torchrun saw rank 2 first, which only lost its peer; it ended rank 3 itself, later."""
    seen = {2: failure(2, 1, 0), 1: failure(1, -9, 1), 3: failure(3, -15, 40)}
    assert torchrun.record_failures(seen) == (1, -9)
    (agent,) = attempt.agents()
    assert agent["host"] == "gpu007"
    assert agent["ended"] == [{"rank": 2, "exit_code": 1}, {"rank": 1, "exit_code": -9}]
    attempt.note(stage="train")
    said = {"rank": 2, "host": "gpu007", "kind": "error", "time": 1.0, "hint": "", "exit_code": 1,
            "reason": "RuntimeError: Connection closed by peer [n1]"}  # fmt: skip
    attempt.files.rank(2).write_text(json.dumps(said))
    found = triage.diagnose(attempt, {"status": "running"}, asked=False)
    assert found.reason == "rank 1 on gpu007 was killed by signal 9 (SIGKILL)"


def test_ranks_that_end_by_themselves_are_named_by_their_code(attempt: Attempt) -> None:
    assert torchrun.record_failures({0: failure(0, 3, 0)}) == (0, 3)


def test_a_fault_of_a_node_is_no_mistake_of_the_users(attempt: Attempt, tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    for error, kind in ((NodeError("sees 0 GPUs"), "error"), (ConfigError("no"), "mistake")):
        with pytest.raises(type(error)), entry.reporting(paths, "train", 0):
            raise error
        facts = json.loads(attempt.files.rank(0).read_text())
        assert (facts["kind"], facts["host"]) == (kind, "gpu007")


def test_a_package_that_pythonpath_hides_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notnumpy.py").write_text("raise ImportError('built for another Python')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError) as caught:
        __import__("notnumpy")
    found = entry.hidden_package(caught.value)
    assert found is not None
    assert "notnumpy.py (built for another Python)" in str(found)
    assert str(tmp_path) in found.hint
    monkeypatch.delenv("PYTHONPATH")
    assert entry.hidden_package(caught.value) is None


def test_a_limit_on_memory_is_named_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (700_000 * 1024, -1))
    with pytest.raises(NodeError, match=r"0\.7 GiB of memory \(ulimit -v\)"):
        start.require_address_space()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, -1))
    start.require_address_space()


def test_more_gpus_promised_than_seen_is_a_fault_of_the_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from datetime import timedelta

    from giblet_hpc.training import world

    monkeypatch.setenv(environment.GPUS, "2")
    monkeypatch.setattr(world.torch, "cuda", SimpleNamespace(is_available=lambda: False))
    with pytest.raises(NodeError, match="see 0"), world.world(timeout=timedelta(seconds=1)):
        pass
    assert sys.exc_info() == (None, None, None)
