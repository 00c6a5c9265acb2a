"""Who asks training to stop."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from giblet_hpc.runs import beacon
from giblet_hpc.runs.environment import LOCAL
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.stages import train


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(train, "STOP_POLL_SECONDS", -1.0)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_without_a_supervisor_the_runs_file_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(LOCAL, raising=False)
    paths = RunPaths(tmp_path)
    stop = train.StopRequest(paths)
    assert not stop()
    paths.stop.touch()
    assert stop()


def test_with_a_supervisor_its_word_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOCAL, str(tmp_path))
    paths = RunPaths(tmp_path / "run")
    stop = train.StopRequest(paths)
    beacon.ask_to_stop(tmp_path)
    assert stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_counts(tmp_path: Path, number: signal.Signals) -> None:
    stop = train.StopRequest(RunPaths(tmp_path))
    os.kill(os.getpid(), number)
    assert stop()
