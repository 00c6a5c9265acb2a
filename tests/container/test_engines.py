"""Jobs of a workstation in the image, by a real Docker engine and by rootless Podman, as a user."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from giblet_hpc.files import read_json
from giblet_hpc.jobs.node import image
from giblet_hpc.runs.environment import TOKEN
from giblet_hpc.runs.paths import RunPaths
from tests.conftest import TINY, Cli, python_for_all, sets
from tests.container import building
from tests.container.building import BUILDER, ROOT, TAG, Built, as_builder

pytestmark = pytest.mark.container
NAME = "giblet-engine-tests:latest"


class Engine(Cli):
    """The command line as an ordinary user, on a machine with one engine."""

    def __init__(self, folder: Path, runtime: str, variables: dict[str, str]) -> None:
        super().__init__(folder)
        self.variables = {**variables, "GIBLET_RUNS": str(self.runs), "OMP_NUM_THREADS": "1"}
        self.profile = folder / "profile.yaml"
        self.profile.write_text(f"scheduler: local\nruntime: {runtime}\nimage: {NAME}\n")

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return as_builder(
            *self.command(*arguments), folder=self.folder, check=check, **self.variables
        )

    def paths(self, name: str) -> RunPaths:
        return RunPaths(self.runs / name)

    def train_state(self, name: str) -> dict[str, Any]:
        return dict(self.paths(name).stage_state("train"))


def wait_until(condition: Callable[[], Any], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def lab(built: Built, study_folder: Path) -> Iterator[Path]:
    """A folder of the ordinary user's with a study in it, and the image as an archive beside it."""
    folder = built.folder / "lab folder"
    folder.mkdir()
    shutil.copytree(study_folder, folder / "data")
    building.run("buildah", "push", "--quiet", TAG, f"docker-archive:{folder}/image.tar:{NAME}")
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, BUILDER, BUILDER)
    with python_for_all():
        yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def docker(built: Built, lab: Path) -> Iterator[Engine]:
    """A Docker engine of our own, that the ordinary user may use."""
    folder = built.folder / "docker"
    socket = f"unix://{folder}/socket"
    folder.mkdir()
    with (folder / "log").open("w") as log:
        engine = subprocess.Popen(
            ["dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none",
             f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--host={socket}",
             f"--pidfile={folder}/pid", f"--group={BUILDER}"],
            stdout=log, stderr=log,
        )  # fmt: skip
    variables = {"DOCKER_HOST": socket, "DOCKER_CONFIG": str(lab)}
    try:
        wait_until(lambda: (folder / "socket").exists(), 60)
        as_builder(
            "docker", "load", "--quiet", "--input", f"{lab}/image.tar", folder=lab, **variables
        )
        yield Engine(lab, "docker", variables)
    finally:
        engine.terminate()
        engine.wait(60)
        subprocess.run(["umount", "--quiet", f"{folder}/exec/netns/default"], check=False)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def podman(built: Built, lab: Path) -> Iterator[Engine]:
    """Rootless Podman with storage of its own.

    crun refuses this kind of machine's control groups, hence runc; the limits are those that the
    user has anyway. Where there is no folder of message queues, `--ipc=host` does not find it.
    """
    folder = built.folder / "podman"
    folder.mkdir()
    (folder / "storage.conf").write_text(
        '[storage]\ndriver = "overlay"\n[storage.options.overlay]\nmount_program = "/usr/bin/fuse-overlayfs"\n'
    )
    (folder / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]\n'
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
    )
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, BUILDER, BUILDER)
    variables = {
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "XDG_RUNTIME_DIR": str(folder),
        "HOME": str(folder),
    }
    queues = Path("/dev/mqueue")
    made = not queues.exists()
    queues.mkdir(exist_ok=True)
    try:
        load = ["podman", "load", "--quiet", "--input", f"{lab}/image.tar"]
        as_builder(*load, folder=lab, **variables)
        yield Engine(lab, "podman", variables)
    finally:
        # Files of users that only exist inside belong to ids that the user alone can remove.
        for command in (["podman", "unshare", "rm", "-rf", f"{folder}/.local"],
                        ["podman", "system", "migrate"]):  # fmt: skip
            as_builder(*command, folder=lab, check=False, **variables)
        if made:
            queues.rmdir()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("runtime", ["docker", "podman"])
def test_a_workstation_trains_in_the_image(runtime: str, request: pytest.FixtureRequest) -> None:
    """Checked, preprocessed, trained by two processes, cancelled, killed, resumed."""
    engine: Engine = request.getfixturevalue(runtime)
    cluster = ["--cluster", str(engine.profile)]
    name = f"by-{runtime}"
    facts = json.loads(engine("image", "check", *cluster, "--json").stdout)
    assert facts["ok"], facts
    settings = [f"study.root={engine.folder}/data", f"study.store={engine.folder}/store-{runtime}.zarr", *TINY,
                "train.epochs=400", "train.checkpoint_every=5"]  # fmt: skip
    engine("submit", "preprocess", "--config", str(ROOT / "configs" / "demo.yaml"), "--name", name,
           *sets(settings), *cluster, "--wait")  # fmt: skip
    train = ["submit", "train", "--name", name, "--ranks", "2", *cluster]
    engine(*train)
    wait_until(lambda: engine.train_state(name).get("step", 0) > 5, 180)
    wait_until(lambda: len(inside(engine, name)) >= 3)
    engine("cancel", name)
    wait_until(lambda: engine.train_state(name).get("status") == "stopped")
    wait_until(lambda: not inside(engine, name))
    engine(*train)
    wait_until(lambda: engine.train_state(name).get("status") == "running", 180)
    wait_until(lambda: len(inside(engine, name)) >= 3)
    assert reachable(engine, name) == len(inside(engine, name)), (
        "a supervisor can end what is inside"
    )
    job = read_json(engine.paths(name).attempts / "3" / "node-0.json")
    os.kill(job["process"], signal.SIGKILL)
    wait_until(lambda: not inside(engine, name), 60)
    manifests = sorted(engine.paths(name).checkpoints().glob("step-*/manifest.json"))
    assert read_json(manifests[-1])["maker"]["image"] == facts["digest"]
    assert facts["digest"].removeprefix("sha256:")
    owners = {path.owner() for path in engine.runs.rglob("*")}
    owners |= {path.owner() for path in (engine.folder / f"store-{runtime}.zarr").rglob("*")}
    assert owners == {BUILDER}


def test_any_user_on_a_root_that_cannot_be_written_without_network(docker: Engine) -> None:
    said = as_builder(
        "docker", "run", "--rm", "--read-only", "--tmpfs=/tmp", "--network=none",
        "--user=54321:54321", f"--entrypoint={image.PYTHON}", NAME, "-m",
        "giblet_hpc.stages.selfcheck", folder=docker.folder, **docker.variables,
    ).stdout  # fmt: skip
    assert "FAIL" not in said
    assert "ok   packages" in said


def reachable(engine: Engine, name: str) -> int:
    """Return how many processes the user finds by the token of the newest attempt."""
    environment = Path(f"/proc/{inside(engine, name)[0]}/environ").read_bytes().split(b"\0")
    (token,) = [part[len(TOKEN) + 1 :] for part in environment if part.startswith(b"GIBLET_TOKEN=")]
    look = (
        "from giblet_hpc.jobs.node.processes import processes_with\n"
        "from pathlib import Path\n"
        f"found = processes_with({token.decode()!r})\n"
        "names = [Path(f'/proc/{n}/cmdline').read_bytes().split(b'\\0')[0] for n in found]\n"
        "print(names.count(b'/opt/giblet/bin/python'))"
    )
    return int(as_builder(sys.executable, "-c", look, folder=engine.folder).stdout)


def inside(engine: Engine, name: str) -> list[int]:
    """Return the ids of the run's processes that are in the image."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0] == b"/opt/giblet/bin/python" and bytes(engine.paths(name).root) in words:
            found.append(int(folder.name))
    return found
