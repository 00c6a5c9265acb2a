"""Folders of attempts on a node's disk: none is left, and none in use is taken."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from giblet_hpc.jobs.node import scratch

HOLD = """
import sys
from giblet_hpc.jobs.node.scratch import local_folder
with local_folder() as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def holder() -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_the_folder_is_private_and_goes(temporary: Path) -> None:
    with scratch.local_folder() as folder:
        assert folder.parent == temporary
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "rank-0").write_text("1 2 begin")
    assert list(temporary.iterdir()) == []


def test_what_a_killed_supervisor_left_goes_with_the_next(temporary: Path) -> None:
    process, left = holder()
    (left / "rank-0").write_text("1 2 begin")
    process.kill()
    process.communicate()
    assert left.is_dir()
    with scratch.local_folder() as folder:
        assert list(temporary.iterdir()) == [folder]


def test_what_is_in_use_stays_and_so_does_what_is_no_folder_of_ours(temporary: Path) -> None:
    process, used = holder()
    (temporary / "elsewhere").mkdir()
    (temporary / "elsewhere" / scratch.HELD).touch()
    link = temporary / f"{scratch._prefix()}link"
    link.symlink_to(temporary / "elsewhere")
    other = temporary / f"{scratch._prefix()}empty"
    other.mkdir()
    elsewhere = temporary / f"{scratch.PREFIX}node7-abc"
    shutil.copytree(temporary / "elsewhere", elsewhere)
    with scratch.local_folder():
        assert used.is_dir()
    assert link.is_symlink() and (temporary / "elsewhere" / scratch.HELD).is_file()
    assert other.is_dir(), "nothing says that it is an attempt's"
    assert elsewhere.is_dir(), "another node's locks may not be seen here"
    process.communicate()
    assert process.returncode == 0
    assert not used.exists()
