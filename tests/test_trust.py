"""What others may have put into a folder does not lead anywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from giblet_hpc import trust
from giblet_hpc.errors import ConfigError, DataError, StorageError
from giblet_hpc.files import read_json, write_private_json
from tests.conftest import leave_out

STRANGER = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def test_appending_makes_a_file_and_goes_on(tmp_path: Path) -> None:
    for word in (b"a", b"b"):
        with trust.append(tmp_path / "log") as handle:
            handle.write(word)
    assert (tmp_path / "log").read_bytes() == b"ab"


@pytest.mark.parametrize("kind", ["link", "link to nothing", "pipe"])
def test_nothing_is_written_where_a_name_leads_elsewhere(tmp_path: Path, kind: str) -> None:
    treasure, name = tmp_path / "treasure", tmp_path / "log"
    treasure.write_text("kept")
    if kind == "pipe":
        os.mkfifo(name)
    else:
        name.symlink_to(treasure if kind == "link" else tmp_path / "nothing")
    with pytest.raises(StorageError, match=r"log, which belongs to \S+, leads elsewhere"):
        trust.append(name)
    assert treasure.read_text() == "kept"
    assert not (tmp_path / "nothing").exists()


def test_a_pipe_keeps_no_reader_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lease.json")
    with pytest.raises(DataError, match="no regular file"):
        trust.read_text(tmp_path / "lease.json")
    with pytest.raises(DataError, match="no regular file"):
        read_json(tmp_path / "lease.json")


def test_private_files_are_private_under_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private_json(tmp_path / "key.json", {"key": 1})
    finally:
        os.umask(before)
    assert (tmp_path / "key.json").stat().st_mode & 0o777 == 0o600
    assert read_json(tmp_path / "key.json") == {"key": 1}


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    folder = tmp_path / "clusters"
    folder.mkdir(mode=0o755)
    (folder / "c.yaml").write_text("setup: [touch /tmp/mark]\n")
    (folder / "c.yaml").chmod(0o644)
    return folder / "c.yaml"


def test_ones_own_files_are_safe(profile: Path) -> None:
    trust.require_safe(profile, what="profile")


@pytest.mark.parametrize("place", ["file", "folder"])
def test_what_everybody_can_write_is_refused_and_named(profile: Path, place: str) -> None:
    found = profile if place == "file" else profile.parent
    found.chmod(found.stat().st_mode | 0o002)
    with pytest.raises(ConfigError, match=rf"everybody can write to {found}") as caught:
        trust.require_safe(profile, what="profile")
    assert caught.value.hint == f"chmod go-w {found}"


@as_root
@pytest.mark.parametrize("place", ["file", "folder"])
def test_what_belongs_to_others_is_refused_and_named(profile: Path, place: str) -> None:
    found = profile if place == "file" else profile.parent
    os.chown(found, STRANGER, STRANGER)
    with pytest.raises(ConfigError, match=rf"{found} belongs to user {STRANGER}"):
        trust.require_safe(profile, what="profile")
    trust.require_safe(profile, what="profile", of_others=True)


@as_root
def test_a_group_that_can_write_is_refused_even_where_others_files_are_taken(profile: Path) -> None:
    os.chown(profile, STRANGER, STRANGER)
    profile.chmod(0o664)
    with pytest.raises(ConfigError, match=f"the group {STRANGER} can write to"):
        trust.require_safe(profile, what="profile", of_others=True)
    trust.require_safe(profile, what="profile", of_others=True, group=str(STRANGER))


@as_root
def test_a_link_of_others_is_refused(profile: Path, tmp_path: Path) -> None:
    link = tmp_path / "mine.yaml"
    link.symlink_to(profile)
    trust.require_safe(link, what="profile")
    os.chown(link, STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(ConfigError, match=f"{link} belongs to user {STRANGER}"):
        trust.require_safe(link, what="profile")


@as_root
def test_a_folder_of_somebody_else_is_not_worked_in(tmp_path: Path) -> None:
    trust.require_mine(tmp_path, what="run a")
    trust.require_mine(tmp_path / "new", what="run a")
    os.chown(tmp_path, STRANGER, STRANGER)
    with pytest.raises(ConfigError, match=f"run a in {tmp_path} belongs to user {STRANGER}"):
        trust.require_mine(tmp_path, what="run a")


def test_a_private_folder_is_private_under_any_umask_and_one_that_is_there_stays(
    tmp_path: Path,
) -> None:
    before = os.umask(0)
    try:
        trust.make_private_folder(tmp_path / "a" / "run")
        (tmp_path / "shared").mkdir(mode=0o770)
        trust.make_private_folder(tmp_path / "shared")
    finally:
        os.umask(before)
    assert (tmp_path / "a" / "run").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o770


def test_a_default_access_list_opens_no_private_folder(tmp_path: Path) -> None:
    if shutil.which("setfacl") is None:
        leave_out("slurm", "needs setfacl; slurm/testcluster/install.sh installs it")
    command = ["setfacl", "-d", "-m", f"u:{STRANGER}:rwx", str(tmp_path)]
    if subprocess.run(command, check=False).returncode:
        pytest.skip("this file system has no access lists")
    trust.make_private_folder(tmp_path / "run")
    assert (tmp_path / "run").stat().st_mode & 0o077 == 0
