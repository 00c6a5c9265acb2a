"""Ordinary users who share a folder, a store and a real Slurm; one of them is not to be trusted."""

from __future__ import annotations

import grp
import os
import pickle
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import python_for_all
from tests.slurm.conftest import PROFILE, SlurmCli, options_of, slurm_cluster

pytestmark = pytest.mark.slurm
TWO = ["--ranks", "2", "--nodes", "2"]
USERS = ("giblet-ann", "giblet-ben")


@pytest.fixture
def members() -> Iterator[None]:
    """Two ordinary users of one group, who can reach this Python."""
    subprocess.run(["groupadd", "--force", "giblet-lab"], check=True)
    for user in USERS:
        subprocess.run(
            ["useradd", "--no-create-home", "--gid", "giblet-lab", user],
            check=False, capture_output=True,
        )  # fmt: skip
    with python_for_all():
        yield
    for user in USERS:
        subprocess.run(["userdel", user], check=True, capture_output=True)
    subprocess.run(["groupdel", "giblet-lab"], check=False, capture_output=True)


def as_user(
    user: str, cli: SlurmCli, *arguments: str, check: bool = True
) -> subprocess.CompletedProcess[str]:
    account = pwd.getpwnam(user)
    command = [
        "setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups",
        *cli.command(*arguments),
    ]  # fmt: skip
    done = subprocess.run(
        command,
        cwd=cli.folder,
        env={**os.environ, "HOME": str(cli.folder), "USER": user, "LOGNAME": user,
             "GIBLET_RUNS": str(cli.runs), "SLURM_CONF": os.environ["SLURM_CONF"]},
        capture_output=True,
        text=True,
        timeout=1200,
    )  # fmt: skip
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


TRAP = """
import os
with open("{mark}", "a") as handle:
    handle.write(f"{{os.getuid()}} {{__name__}}\\n")
raise ImportError("planted")
"""


def plant(lab: Path, mark: Path) -> None:
    """Do as a member of the lab what makes others run one's code, or open their folders."""
    ann, ben = (pwd.getpwnam(user) for user in USERS)
    home = lab / "home of ann"
    home.mkdir(mode=0o700)
    os.chown(home, ann.pw_uid, ann.pw_gid)
    for name in ("yaml", "av", "numpy", "submitit", "tensorboard", "sitecustomize"):
        trap = lab / f"{name}.py"
        trap.write_text(TRAP.format(mark=mark))
        os.chown(trap, ben.pw_uid, ben.pw_gid)
    link = lab / "trap.zarr"
    link.symlink_to(home)
    os.chown(link, ben.pw_uid, ben.pw_gid, follow_symlinks=False)


def plant_run(cli: SlurmCli, mark: Path) -> None:
    """As a member, put a run there that is newer than all others and runs a command."""
    ben = pwd.getpwnam(USERS[1])
    planted = cli.runs / "newest"
    shutil.copytree(cli.runs / "ann's run", planted)
    (planted / "cluster.yaml").write_text(f"{PROFILE}setup: ['id -u >>{mark}']\n")
    for path in (planted, *planted.rglob("*")):
        os.chown(path, ben.pw_uid, ben.pw_gid)
        path.touch()


class Payload:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def require_only_what_was_queued_runs(cli: SlurmCli, mark: Path, options: list[str]) -> None:
    """While a job waits, a member exchanges the folder of its run for a copy with his own job."""
    held = cli.profile.with_name("held.yaml")
    held.write_text(cli.profile.read_text() + "options: {hold: true}\n")
    where = ["--cluster", str(held), *TWO]
    as_user(USERS[0], cli, "submit", "pipeline", *options, "--name", "waits", *where)
    paths = cli.paths("waits")
    folder = paths.root
    ben = pwd.getpwnam(USERS[1])
    folder.rename(folder.with_name("moved away"))
    shutil.copytree(folder.with_name("moved away"), folder, symlinks=True)
    planted = list(folder.rglob("*_submitted.pkl"))
    assert planted
    for path in planted:
        path.write_bytes(pickle.dumps(Payload(mark)))
    for path in (folder, *folder.rglob("*")):
        os.chown(path, ben.pw_uid, ben.pw_gid, follow_symlinks=False)
        path.chmod(0o777 if path.is_dir() else 0o666)
    job = paths.recorded_state("preprocess", part="plan")["job"]
    subprocess.run(["scontrol", "release", str(job)], check=True)
    for _ in range(120):
        logs = [log.read_text() for log in folder.rglob("*_log.out")]
        if any("is not the job that was queued" in text for text in logs):
            break
        time.sleep(0.5)
    else:
        raise AssertionError(logs)
    subprocess.run(["scancel", "--user", USERS[0]], check=True)
    assert not mark.exists()


def accounted() -> str:
    return subprocess.run(
        ["sacct", "-X", "-n", "-P", "-a", "-o", "JobName,User,State"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def require_only_taken_up_by_its_owner(cli: SlurmCli, mark: Path) -> None:
    plant_run(cli, mark)
    again = as_user(USERS[0], cli, "resubmit")
    assert "run ann's run: preprocess, train, evaluate already complete" in again.stderr
    taken = as_user(USERS[0], cli, "resubmit", "newest", check=False)
    assert "belongs to giblet-ben: it is not worked on as you" in taken.stderr
    assert not mark.exists(), mark.read_text()


@pytest.fixture
def lab() -> Iterator[Path]:
    folder = Path(f"/tmp/giblet lab {os.getpid()}")
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.users
def test_with_accounting_as_ordinary_users_of_one_group(
    members: None, study_folder: Path, lab: Path
) -> None:
    """Two members share a store; each reads the other's run, and cannot change it.

    One of them has put traps into the folder that they share.
    """
    folder = Path(f"/tmp/giblet-acct-{os.getpid()}")
    with slurm_cluster(folder, accounting=True):
        subprocess.run(
            ["sacctmgr", "-i", "add", "cluster", "giblet"], check=False, capture_output=True
        )
        group = grp.getgrnam("giblet-lab").gr_gid
        os.chown(lab, -1, group)
        lab.chmod(0o2770)
        data = lab / "data"
        shutil.copytree(study_folder, data)
        (lab / "profile.yaml").write_text(PROFILE + "group: giblet-lab\n")
        cli = SlurmCli(lab, lab / "profile.yaml")
        cli.runs = lab / "all runs"
        cli.runs.mkdir()
        for path in (lab, *lab.rglob("*")):
            os.chown(path, -1, group)
            path.chmod(0o2770 if path.is_dir() else 0o640)
        mark = Path(f"/tmp/giblet-mark-{os.getpid()}")
        plant(lab, mark)
        options = options_of(data, lab / "store.zarr", ["train.epochs=2"])
        where = ["--cluster", str(cli.profile), *TWO]
        trapped = options_of(data, lab / "trap.zarr", ["train.epochs=2"])
        refused = as_user(
            USERS[0], cli, "submit", "pipeline", *trapped, "--name", "trapped", *where, check=False
        )
        assert "trap.zarr is a link that belongs to giblet-ben" in refused.stderr
        assert (lab / "home of ann").stat().st_mode & 0o777 == 0o700
        as_user(USERS[0], cli, "submit", "pipeline", *options, "--name", "ann's run", *where)
        cli.wait("ann's run", "evaluate", "complete", 300)
        commits = {p: p.stat().st_mtime_ns for p in (lab / "store.zarr").rglob("commits/**/*.json")}
        assert commits
        as_user(USERS[1], cli, "submit", "pipeline", *options, "--name", "ben", *where)
        cli.wait("ben", "evaluate", "complete", 300)
        assert {p: p.stat().st_mtime_ns for p in commits} == commits, "nothing is made twice"
        assert "model r" in as_user(USERS[1], cli, "scores", "ann's run").stdout
        require_only_taken_up_by_its_owner(cli, mark)
        require_only_what_was_queued_runs(cli, mark, options)
        refused = as_user(USERS[1], cli, "cancel", "ann's run", check=False)
        assert refused.returncode != 0
        writable = [
            path for path in (cli.runs / "ann's run").rglob("*")
            if path.stat().st_mode & 0o022 and not path.is_symlink()
        ]  # fmt: skip
        assert not writable
        assert "giblet-ann-s-run-train|giblet-ann|COMPLETED" in accounted()
