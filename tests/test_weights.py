"""Weights that an image carries: fetched, checked, found by name. The hub is a stand-in."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from giblet_hpc.stages import selfcheck

SCRIPTS = Path(__file__).parents[1] / "container" / "weights"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = """\
#!/bin/sh
# Writes what `hf download MODEL --revision COMMIT` leaves in the cache: no refs for a commit.
set -e
[ "$1 $2 $3" = "download lab/tiny --revision" ]
cd "$HF_HUB_CACHE"
mkdir -p models--lab--tiny/blobs models--lab--tiny/snapshots/{commit} .locks
echo '{{"model_type": "bert"}}' >models--lab--tiny/blobs/abc
ln -sf ../../blobs/abc models--lab--tiny/snapshots/{commit}/config.json
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of container/weights, on a machine whose `hf` is a stand-in."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "hf").write_text(HUB.format(commit=COMMIT))
    (binaries / "hf").chmod(0o755)
    monkeypatch.setenv("PATH", str(binaries), prepend=os.pathsep)
    copy = tmp_path / "weights"
    copy.mkdir()
    for name in ("fetch.sh", "check.sh", "README.md"):
        shutil.copy(SCRIPTS / name, copy)
    return copy


def script(folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([folder / name, *arguments], capture_output=True, text=True, cwd="/")


def test_fetched_weights_are_found_by_name(folder: Path) -> None:
    assert selfcheck.weights(folder).startswith("skipped")
    done = script(folder, "fetch.sh", "lab/tiny", COMMIT)
    assert done.returncode == 0, done.stderr
    assert selfcheck.weights(folder) == f"1 models in {folder}"
    assert script(folder, "check.sh", str(folder)).returncode == 0
    (folder / "models--lab--tiny" / "refs" / "main").unlink()
    with pytest.raises(selfcheck.CheckError, match="lab/tiny is not found by its name"):
        selfcheck.weights(folder)


def test_half_a_commit_is_refused(folder: Path) -> None:
    done = script(folder, "fetch.sh", "lab/tiny", COMMIT[:8])
    assert done.returncode == 1
    assert f"there is: {COMMIT}" in done.stderr


def test_what_is_not_as_it_was_or_not_named_is_refused(folder: Path) -> None:
    check = str(folder / "check.sh")
    assert subprocess.run([check, folder]).returncode == 0, "no weights are fine"
    script(folder, "fetch.sh", "lab/tiny", COMMIT)
    blob = folder / "models--lab--tiny" / "blobs" / "abc"
    good = blob.read_bytes()
    blob.write_bytes(b"other")
    assert "blobs/abc: FAILED" in script(folder, "check.sh", str(folder)).stdout
    blob.write_bytes(good)
    (blob.parent / "more.sh").touch()
    said = script(folder, "check.sh", str(folder)).stderr
    assert "not in SHA256SUMS: ./models--lab--tiny/blobs/more.sh" in said
    (blob.parent / "more.sh").unlink()
    (folder / "SHA256SUMS").unlink()
    done = script(folder, "check.sh", str(folder))
    assert done.returncode == 1
    assert "no SHA256SUMS" in done.stderr
