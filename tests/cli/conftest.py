"""The command line in this process: for what needs no process of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from giblet_hpc.cli.main import main
from giblet_hpc.config import io
from giblet_hpc.runs.paths import RunPaths

Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run a command in an empty folder, with no profile but those that a test writes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIBLET_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.setattr("os.umask", lambda mask: 0o022)

    def run(*words: str, code: int = 0) -> Result:
        done = CliRunner().invoke(main, list(words))
        assert done.exit_code == code, done.output + done.stderr + repr(done.exception)
        return done

    return run


@pytest.fixture
def run_folder(tmp_path: Path, demo_config: str) -> RunPaths:
    """A run of which nothing is made yet."""
    paths = RunPaths(tmp_path / "runs" / "movie")
    paths.create(io.load(Path(demo_config)))
    return paths
