"""Who else can write where runs and stores are."""

from __future__ import annotations

import grp
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from giblet_hpc.config.cluster import Cluster
from giblet_hpc.jobs.doctor import exposure
from tests.conftest import leave_out

STRANGER = 12345
OWN = grp.getgrgid(os.getgid()).gr_name


def seen(folder: Path, group: str | None = None) -> tuple[str, str, str]:
    found = exposure.of_folder(folder, group)
    return found.level, found.seen, found.fix


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert seen(tmp_path)[:2] == ("ok", f"only you can write to {tmp_path}")
    assert seen(tmp_path / "none")[0] == "skipped"


def test_groups_and_everybody(tmp_path: Path) -> None:
    tmp_path.chmod(0o775)
    level, text, fix = seen(tmp_path)
    assert level == "warn" and f"the group {OWN} can write" in text and "chmod g-w" in fix
    assert seen(tmp_path, OWN)[:2] == (
        "ok",
        f"you, and {OWN} by the profile can write to {tmp_path}",
    )
    tmp_path.chmod(0o777)
    assert seen(tmp_path, OWN)[1] == f"everybody can write to {tmp_path}"
    tmp_path.chmod(0o1777)
    assert seen(tmp_path, OWN)[0] == "ok", "nobody can rename what is not his"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_folder_of_somebody_else(tmp_path: Path) -> None:
    os.chown(tmp_path, STRANGER, STRANGER)
    assert f"belongs to user {STRANGER}" in seen(tmp_path)[1]


def test_access_lists(tmp_path: Path) -> None:
    if shutil.which("setfacl") is None:
        leave_out("slurm", "needs setfacl; slurm/testcluster/install.sh installs it")
    done = subprocess.run(["setfacl", "-m", f"u:{STRANGER}:rwx", str(tmp_path)], check=False)
    if done.returncode:
        pytest.skip("this file system has no access lists")
    assert "has an access list (on it)" in seen(tmp_path)[1]


def test_what_listens_is_said() -> None:
    (one,) = exposure.examine(Cluster(name="c"), [], nodes=1)
    (two,) = exposure.examine(Cluster(name="c"), [], nodes=2)
    assert "loopback" in one.seen
    assert "firewall" in two.seen and "not run code" in two.seen
