"""TensorBoard is started under a path that no list of processes shows."""

from __future__ import annotations

import signal
import sys
from typing import Any

import pytest

from giblet_hpc.jobs.inspect import curves
from giblet_hpc.jobs.inspect.tensorboard import PREFIX


class Server:
    """Stands in for TensorBoard, whose start takes seconds; tests/slurm has the real one."""

    told: list[str]

    def configure(self, argv: list[str]) -> None:
        Server.told = argv

    def launch(self) -> str:
        return "http://127.0.0.1:1"


def test_the_prefix_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[Any] = []
    monkeypatch.setattr(curves.program, "TensorBoard", Server)
    monkeypatch.setattr(signal, "sigwait", waited.append)
    monkeypatch.setattr(signal, "pthread_sigmask", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["curves", "--host=127.0.0.1"])
    monkeypatch.setenv(PREFIX, "/secret")
    assert curves.main() == 0
    assert Server.told == ["curves", "--host=127.0.0.1", "--path_prefix=/secret"]
    assert {signal.SIGTERM, signal.SIGINT} <= waited[0]
