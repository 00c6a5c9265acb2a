"""What is recorded of the code: this package's own, and nothing of a repository around it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from giblet_hpc.jobs.record import provenance


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def repository(folder: Path) -> Path:
    (folder / "giblet_hpc").mkdir(parents=True)
    (folder / "giblet_hpc" / "a.py").write_text("one = 1\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "one")
    return folder


def test_a_clone_is_recorded_with_its_changes(tmp_path: Path) -> None:
    clone = repository(tmp_path / "clone")
    found = provenance.source(clone)
    assert found["commit"] == git(clone, "rev-parse", "HEAD")
    assert found["diff"] == found["diff_sha256"] == ""
    (clone / "giblet_hpc" / "a.py").write_text("one = 2\n")
    (clone / "secrets.txt").write_text("not of the package")
    found = provenance.source(clone)
    assert "+one = 2" in found["diff"] and len(found["diff_sha256"]) == 64
    assert "secrets" not in found["diff"]


def test_a_repository_of_the_user_around_the_package_is_not(tmp_path: Path) -> None:
    users = repository(tmp_path / "users")
    inside = users / ".venv" / "lib"
    (inside / "giblet_hpc").mkdir(parents=True)
    found = provenance.source(inside)
    assert found["commit"] == found["diff"] == ""


def test_this_package_is_found() -> None:
    root = Path(__file__).parents[3]
    if (root / ".git").exists():
        assert provenance.source()["commit"] == git(root, "rev-parse", "HEAD")
