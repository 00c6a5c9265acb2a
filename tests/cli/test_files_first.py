"""What headers tell against a study is said before anything is queued."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests import test_problems
from tests.cli.conftest import Invoke
from tests.test_problems import CONFIG


@pytest.fixture
def copy(study_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(study_folder, tmp_path / "data")
    return tmp_path / "data"


def test_nothing_is_queued_with_files_that_do_not_fit(
    copy: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    test_problems.spoil(copy)
    monkeypatch.setenv("GIBLET_CLUSTER", "local")
    options = ["--config", str(CONFIG), "--set", f"study.root={copy}"]
    said = invoke("submit", "pipeline", *options, code=2).stderr
    assert said.startswith("error: 3 problems with the study's files:")
    assert "--no-checks" in said
    assert not (tmp_path / "runs").exists()
    assert "3 problems" in invoke(
        "config", "check", "--data", str(CONFIG), "--set", f"study.root={copy}", code=2
    ).stderr  # fmt: skip
