"""A group gets what a run has made, and nothing that somebody has linked into it."""

from __future__ import annotations

import grp
import os
from pathlib import Path

import pytest

from giblet_hpc import store as stores
from giblet_hpc.errors import ConfigError
from giblet_hpc.jobs.submit import sharing

STRANGER = 12345
GROUP = grp.getgrgid(os.getgid()).gr_name
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def mode(path: Path) -> int:
    return path.lstat().st_mode & 0o7777


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "runs" / "a"
    (run / "attempts" / "1").mkdir(parents=True)
    (run / "run.yaml").write_text("x")
    key = run / "attempts" / "1" / "rendezvous.json"
    key.write_text("key")
    for path in (tmp_path / "runs", run, run / "attempts", run / "run.yaml", key):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return run


@pytest.fixture
def treasure(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "id_ed25519").write_text("secret")
    (home / "id_ed25519").chmod(0o600)
    return home


def test_a_run_is_readable_and_its_store_writable(run: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.zarr"
    sharing.share(run, store, GROUP)
    assert mode(run) == mode(run / "attempts") == 0o2750
    assert mode(run / "run.yaml") == 0o640
    assert mode(store) == 0o2770
    assert mode(run / "attempts" / "1" / "rendezvous.json") == 0o600, "the ranks' key is not given"
    (store / sharing.RECORDS).mkdir()
    sharing.share(run, store, GROUP)
    assert sharing.RECORDS == stores.RECORDS


def test_links_in_a_run_open_nothing(run: Path, treasure: Path) -> None:
    (run / "notes").symlink_to(treasure / "id_ed25519")
    (run / "folder").symlink_to(treasure)
    os.link(treasure / "id_ed25519", run / "attempts" / "twin")
    os.mkfifo(run / "pipe", 0o600)
    sharing.share(run, None, GROUP)
    assert mode(treasure) == 0o700
    assert mode(treasure / "id_ed25519") == 0o600
    assert mode(run / "pipe") == 0o600


@as_root
def test_a_store_that_somebody_has_linked_is_refused(run: Path, treasure: Path) -> None:
    store = run.parent / "store.zarr"
    store.symlink_to(treasure)
    os.chown(store, STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(ConfigError, match=f"store.zarr is a link that belongs to user {STRANGER}"):
        sharing.share(run, store, GROUP)
    assert mode(treasure) == 0o700


def test_a_folder_that_is_no_store_is_not_given(run: Path, treasure: Path) -> None:
    with pytest.raises(ConfigError, match="holds other things than a store"):
        sharing.share(run, treasure, GROUP)
    assert mode(treasure) == 0o700


@as_root
def test_what_belongs_to_others_is_left_as_it_is(run: Path) -> None:
    other = run / "theirs"
    other.write_text("x")
    other.chmod(0o600)
    os.chown(other, STRANGER, STRANGER)
    sharing.share(run, None, GROUP)
    assert mode(other) == 0o600
    assert other.stat().st_gid == STRANGER
