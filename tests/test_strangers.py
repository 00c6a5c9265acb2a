"""Three ordinary users on one machine: whose runs they are, a member of her lab, and a stranger.

Each test tries one attack as another user, on a lab's folder that the member can write to and on a
run that was made there, once without a scheduler and once with a real Slurm.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TINY, python_for_all, sets
from tests.slurm.conftest import PROFILE, slurm_cluster

pytestmark = [
    pytest.mark.users,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become other users"),
]
VICTIM, MEMBER, STRANGER = "giblet-victim", "giblet-member", "giblet-stranger"
GROUP = "giblet-trio"
CONFIG = Path(__file__).parents[1] / "configs" / "demo.yaml"
PROGRAM = Path(sys.executable).parent / "giblet-hpc"

TRAP = """
import os
with open("{mark}", "a") as handle:
    handle.write(f"{{os.getuid()}} {{__name__}}\\n")
raise ImportError("planted")
"""
ORDERS = """
import base64, contextlib, datetime, os, pickle, sys, time
from torch.distributed import TCPStore
folder, victim = sys.argv[1], int(sys.argv[2])
class Payload:
    def __reduce__(self):
        return os.mkdir, (f"{folder}/ran",)
tried = set()
def listening():
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in open(name).read().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and int(words[7]) == victim:
                yield int(words[1].rpartition(":")[2], 16)
open(f"{folder}/ready", "w").close()
while not os.path.exists(f"{folder}/enough"):
    for port in set(listening()) - tried:
        tried.add(port)
        with contextlib.suppress(Exception):
            store = TCPStore("127.0.0.1", port, None, False, datetime.timedelta(seconds=2))
            value = base64.b64encode(pickle.dumps(Payload()))
            for key in ("torch.rendezvous.none", "torch.rendezvous.giblet"):
                store.set(key, value)
            open(f"{folder}/taken", "w").close()
    time.sleep(0.05)
"""
REPLACE = """
import sys
import numpy
from giblet_hpc.store import FeatureStore
store = FeatureStore(__import__("pathlib").Path(sys.argv[1]))
spec = next(one for one in store.arrays() if "audio" in one.name)
rows = spec.rows(0)
values = numpy.zeros((rows.stop - rows.start, *spec.shape[1:]), spec.dtype)
store.write_shard(spec, 0, values)
"""


class Lab:
    """A folder of a lab's, and who works in it.

    Parameters
    ----------
    folder : Path
    nodes : int
        Over how many the two ranks of a training go.
    """

    def __init__(self, folder: Path, nodes: int) -> None:
        self.folder = folder
        self.nodes = nodes
        self.runs = folder / "all runs"
        self.store = folder / "store.zarr"
        self.home = folder / "home of the victim"
        self.marks = folder.with_name(f"{folder.name} marks")
        self.options = [
            f"study.root={folder / 'data'}", f"study.store={self.store}", *TINY, "train.epochs=2",
        ]  # fmt: skip

    def become(self, user: str) -> list[str]:
        account = pwd.getpwnam(user)
        return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}",
                "--clear-groups"]  # fmt: skip

    def environment(self, user: str) -> dict[str, str]:
        home = self.home if user == VICTIM else Path("/nonexistent")
        return {**os.environ, "HOME": str(home), "USER": user, "LOGNAME": user,
                "GIBLET_RUNS": str(self.runs), "GIBLET_CLUSTER": str(self.folder / "here.yaml"),
                "PYTHONPATH": str(CONFIG.parents[1])}  # fmt: skip

    def start(self, user: str, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.become(user), *command], cwd=self.folder, env=self.environment(user),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def do(self, user: str, *command: str, check: bool = True) -> str:
        process = self.start(user, *command)
        try:
            said, _ = process.communicate(timeout=120)
        finally:
            process.kill()
        assert process.returncode == 0 or not check, said
        return said

    def victim(self, *arguments: str, check: bool = True) -> str:
        return self.do(VICTIM, str(PROGRAM), *arguments, check=check)

    def submit(self, stage: str, name: str, *options: str) -> str:
        several = ["--ranks", "2", "--nodes", str(self.nodes)] if stage != "preprocess" else []
        named = ["--config", str(CONFIG), "--name", name, *several]
        return self.victim("submit", stage, *named, *sets([*self.options, *options]), check=False)

    def wait(self, name: str, stage: str) -> str:
        """Wait until a stage has ended; return how."""
        for _ in range(600):
            text = self.victim("status", name, "--json", check=False)
            found = json.loads(text.splitlines()[-1])["stages"][stage]["status"]
            if found in ("complete", "failed", "stopped", "interrupted"):
                return str(found)
            time.sleep(0.5)
        raise AssertionError(text)

    def give(self, user: str, *paths: Path) -> None:
        account = pwd.getpwnam(user)
        for path in paths:
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


@pytest.fixture(scope="module")
def users() -> Iterator[None]:
    subprocess.run(["groupadd", "--force", GROUP], check=True)
    for user in (VICTIM, MEMBER, STRANGER):
        group = ["--gid", GROUP] if user != STRANGER else ["--user-group"]
        subprocess.run(
            ["useradd", "--no-create-home", *group, user], check=False, capture_output=True
        )
    with python_for_all():
        yield
    for user in (VICTIM, MEMBER, STRANGER):
        subprocess.run(["pkill", "-KILL", "-u", user], check=False)
        subprocess.run(["userdel", user], check=True, capture_output=True)
    subprocess.run(["groupdel", GROUP], check=False, capture_output=True)


@pytest.fixture(scope="module", params=["local", pytest.param("slurm", marks=pytest.mark.slurm)])
def profile(request: pytest.FixtureRequest) -> Iterator[str]:
    """The text of a profile, with its scheduler there to be used."""
    if request.param == "local":
        yield "scheduler: local\n"
        return
    with slurm_cluster(Path(f"/tmp/giblet-trio-{os.getpid()}"), accounting=False):
        yield PROFILE


@pytest.fixture(scope="module")
def lab(users: None, profile: str, study_folder: Path) -> Iterator[Lab]:
    """A run that was made while traps lay about and the stranger sent orders to every port."""
    nodes = 2 if "slurm" in profile else 1
    lab = Lab(Path(f"/tmp/giblet trio {os.getpid()} {nodes}"), nodes)
    for folder in (lab.folder, lab.runs, lab.marks):
        folder.mkdir()
    shutil.copytree(study_folder, lab.folder / "data")
    (lab.folder / "here.yaml").write_text(f"{profile}group: {GROUP}\n")
    for path in (lab.folder, *lab.folder.rglob("*")):
        shutil.chown(path, "root", GROUP)
        path.chmod(0o2775 if path.is_dir() else 0o644)
    lab.marks.chmod(0o777)
    lab.home.mkdir(mode=0o700)
    lab.give(VICTIM, lab.home)
    for name in ("yaml", "av", "numpy", "submitit", "torch", "tensorboard", "sitecustomize"):
        trap = lab.folder / f"{name}.py"
        trap.write_text(TRAP.format(mark=lab.marks / "imported"))
        lab.give(MEMBER, trap)
    number = str(pwd.getpwnam(VICTIM).pw_uid)
    orders = subprocess.Popen(
        [*lab.become(STRANGER), sys.executable, "-P", "-c", ORDERS, str(lab.marks), number],
        cwd="/",
    )
    while not (lab.marks / "ready").exists():
        assert orders.poll() is None
        time.sleep(0.1)
    said = lab.submit("pipeline", "hers", "train.epochs=6")
    said += lab.wait("hers", "evaluate")
    (lab.marks / "enough").touch()
    # A port that takes what is sent and never answers holds it for as long as it listens.
    with contextlib.suppress(subprocess.TimeoutExpired):
        orders.wait(10)
    orders.kill()
    assert orders.wait() in (0, -signal.SIGKILL)
    (lab.marks / "said").write_text(said)
    yield lab
    shutil.rmtree(lab.folder)
    shutil.rmtree(lab.marks)


def test_a_stranger_on_the_node_gives_no_orders_to_ranks(lab: Lab) -> None:
    assert not (lab.marks / "ran").exists(), "what the stranger had sent was unpickled"
    assert not (lab.marks / "taken").exists(), "a store took what the stranger had sent"


def test_modules_in_the_working_folder_are_not_imported(lab: Lab) -> None:
    mark = lab.marks / "imported"
    assert not mark.exists(), mark.read_text()
    assert (lab.marks / "said").read_text().endswith("complete")


def test_a_stranger_reads_neither_runs_nor_stores(lab: Lab) -> None:
    show = "import os, sys\nfor path in sys.argv[1:]: print(os.access(path, os.R_OK))"
    places = [lab.runs / "hers", lab.runs / "hers" / "run.yaml", lab.store]
    said = lab.do(STRANGER, sys.executable, "-P", "-c", show, *map(str, places))
    assert said.split() == ["False"] * 3
    written = [p for p in (lab.runs / "hers").rglob("*")
               if p.stat().st_mode & 0o022 and not p.is_symlink()]  # fmt: skip
    assert not written


def test_runs_of_others_are_not_taken_up(lab: Lab) -> None:
    planted, mark = lab.runs / "newest", lab.marks / "setup"
    shutil.copytree(lab.runs / "hers", planted)
    shutil.rmtree(planted / "checkpoints", ignore_errors=True)
    for state in (planted / "state").glob("*.json"):
        state.write_text(state.read_text().replace('"complete"', '"failed"'))
    site = f"open({str(mark)!r}, 'w').close()\n"
    (planted / "sitecustomize.py").write_text(site)
    (planted / "cluster.yaml").write_text(
        f"scheduler: local\nenvironment: {{PYTHONPATH: {str(planted)!r}}}\n"
    )
    lab.give(MEMBER, planted, *planted.rglob("*"))
    for path in (planted, *planted.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
        path.touch()
    bare = lab.victim("resubmit", check=False)
    named = lab.victim("resubmit", "newest", check=False)
    time.sleep(5)
    shutil.rmtree(planted)
    assert not mark.exists()
    assert "run hers: preprocess, train, evaluate already complete" in bare
    assert f"belongs to {MEMBER}: it is not worked on as you" in " ".join(named.split())


def test_a_linked_store_does_not_open_a_home(lab: Lab) -> None:
    link = lab.folder / "linked.zarr"
    link.symlink_to(lab.home)
    lab.give(MEMBER, link)
    said = lab.submit("preprocess", "linked", f"study.store={link}")
    if (lab.runs / "linked").exists():
        lab.wait("linked", "preprocess")
    assert lab.home.stat().st_mode & 0o777 == 0o700
    assert f"linked.zarr is a link that belongs to {MEMBER}" in " ".join(said.split())


def test_nothing_is_written_through_a_link(lab: Lab) -> None:
    lock = lab.store / ".giblet" / "plan.lock"
    lock.unlink()
    target = lab.home / "planted"
    lock.symlink_to(target)
    lab.give(MEMBER, lock)
    lab.submit("preprocess", "through", "features.video.height=16")
    how = lab.wait("through", "preprocess")
    said = lab.victim("status", "through", check=False)
    lock.unlink()
    assert not target.exists()
    assert how == "failed"
    assert f"plan.lock, which belongs to {MEMBER}, leads elsewhere" in " ".join(said.split())


def test_a_shard_that_was_replaced_with_its_record_is_refused(lab: Lab) -> None:
    assert "complete" in lab.submit("preprocess", "exchanged") + lab.wait("exchanged", "preprocess")
    lab.do(MEMBER, sys.executable, "-P", "-c", REPLACE, str(lab.store))
    lab.submit("train", "exchanged")
    how = lab.wait("exchanged", "train")
    said = " ".join(lab.victim("status", "exchanged", check=False).split())
    assert how == "failed", said
    assert re.search(r"run1/audio.* holds other values than", said), said


def test_a_stranger_does_not_read_the_curves(lab: Lab) -> None:
    process = lab.start(VICTIM, str(PROGRAM), "tensorboard", "hers")
    assert process.stdout is not None
    try:
        seen = ""
        while not (found := re.search(r"http://localhost:(\d+)(\S*)", seen)):
            seen += process.stdout.readline()
        statuses = [_fetch(int(found[1]), path) for path in ("/data/runs", "/")]
        assert _fetch(int(found[1]), f"{found[2].rstrip('/')}/data/runs") == 200
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert statuses == [404, 404]


def _fetch(port: int, path: str) -> int:
    """Return what a request of somebody else's is answered with, once the server is up."""
    for _ in range(240):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            time.sleep(0.25)
    raise AssertionError("no answer")


def test_a_run_that_may_not_be_entered_disturbs_no_status(lab: Lab) -> None:
    private = lab.runs / "a private one"
    shutil.copytree(lab.runs / "hers", private)
    lab.give(MEMBER, private, *private.rglob("*"))
    private.chmod(0o700)
    said = lab.victim("status") + lab.victim("runs")
    shutil.rmtree(private)
    assert "hers" in said
    assert "a private one" not in said


@pytest.mark.parametrize("damage", ["pipe", "control characters"])
def test_a_run_that_was_planted_disturbs_no_status(lab: Lab, damage: str) -> None:
    planted = lab.runs / "a bad one"
    shutil.copytree(lab.runs / "hers", planted)
    state = planted / "state" / "train.json"
    if damage == "pipe":
        state.unlink()
        os.mkfifo(state)
    else:
        facts: dict[str, Any] = json.loads(state.read_text())
        state.write_text(
            json.dumps({**facts, "status": "failed", "reason": "\x1b]0;mine\x07|\x1b[2J"})
        )
    lab.give(MEMBER, planted, *planted.rglob("*"))
    for path in (planted, *planted.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    try:
        said = lab.victim("status", "--runs", str(lab.runs), check=False)
    except subprocess.TimeoutExpired:
        said = "nothing in two minutes"
    shutil.rmtree(planted)
    assert "run hers" in said or "hers" in said.split()
    assert "\x1b" not in said
