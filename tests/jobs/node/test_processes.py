"""A stage's processes end, whatever they do to stay."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from giblet_hpc.jobs.node import processes
from giblet_hpc.jobs.node.processes import Child, processes_with
from giblet_hpc.runs.environment import TOKEN

STUBBORN = """
import os, signal, subprocess, sys, time
for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
open(sys.argv[1], "w").close()
time.sleep(60)
"""


def child(token: str, *words: str) -> Child:
    environment = {**os.environ, TOKEN: token}
    return Child([sys.executable, "-c", *words], environment, token=token, output=None)


def test_an_exit_code_is_passed_on() -> None:
    made = child("test-code", "raise SystemExit(3)")
    while made.code is None:
        time.sleep(0.02)
    assert made.code == 3
    made.kill()


def test_what_ignores_signals_and_what_left_the_session_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "TERM_SECONDS", 0.3)
    mark = tmp_path / "started"
    made = child("test-stubborn", STUBBORN, str(mark))
    while not mark.exists():
        time.sleep(0.02)
    assert len(made.processes()) == 2
    made.end()
    assert made.processes() == [] and made.code == -9


def test_only_the_whole_token_counts() -> None:
    wait = [sys.executable, "-c", "import time; time.sleep(60)"]
    other = subprocess.Popen(wait, env={**os.environ, TOKEN: "test-token-2"})
    try:
        time.sleep(0.2)
        assert processes_with("test-token") == []
        assert processes_with("test-token-2") == [other.pid]
    finally:
        other.kill()
        other.wait()


def test_the_most_memory_that_was_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that are shared count once, and what a process has started counts with it."""
    code = (
        "import mmap, os, time; held = mmap.mmap(-1, 80 << 20); "
        "[held.write(b'x' * (1 << 20)) for _ in range(80)]; os.fork(); "
        "own = bytearray(b'x' * (20 << 20)); time.sleep(60)"
    )
    made = child("test-memory", code)
    peak = processes.PeakMemory(made)
    peak.look()
    assert peak.bytes == 0, "too early"
    end = time.monotonic() + 30
    while peak.bytes < 120 << 20 and time.monotonic() < end:
        monkeypatch.setattr(peak, "_last", 0.0)
        peak.look()
        time.sleep(0.05)
    made.kill()
    assert 120 << 20 <= peak.bytes < 200 << 20, "80 shared, 20 each, and Python twice"
