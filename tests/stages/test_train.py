"""Who asks training to stop, and what it refuses to begin with."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import torch

from giblet_hpc.config import io
from giblet_hpc.errors import DataError
from giblet_hpc.runs import beacon
from giblet_hpc.runs.environment import LOCAL
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.stages import train
from giblet_hpc.training.feed import StudyArrays
from giblet_hpc.training.world import World


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


def test_scans_before_their_stimulus_are_refused_before_the_first_step(
    tmp_path: Path, demo_config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = RunPaths(tmp_path / "run")
    paths.create(io.load(Path(demo_config)))

    def refuse(*_: object) -> None:
        raise DataError("they do not fit", hint="shift them")

    monkeypatch.setattr(train, "require_possible_lags", refuse)
    config, study, alone = paths.load_config(), cast(StudyArrays, None), World(
        0, 0, 1, torch.device("cpu"))  # fmt: skip
    with pytest.raises(DataError, match="they do not fit") as caught:
        train._require_possible_lags(config, paths, study, alone)
    assert caught.value.hint == "shift them"
    told = config.model_copy(update={
        "train": config.train.model_copy(update={"check_lag": False})})  # fmt: skip
    train._require_possible_lags(told, paths, study, alone)
    monkeypatch.setattr(RunPaths, "checkpoint_step", lambda _: 100)
    train._require_possible_lags(config, paths, study, alone)
