"""What each node does in the doctor's job: look at itself, at the others, and measure with them."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from giblet_hpc.config.cluster import Cluster
from giblet_hpc.errors import GibletError
from giblet_hpc.files import write_json, write_text
from giblet_hpc.findings import Finding
from giblet_hpc.jobs import profiles
from giblet_hpc.jobs.doctor import examine
from giblet_hpc.jobs.node import fabric, start
from giblet_hpc.jobs.node.image import Folders
from giblet_hpc.jobs.node.launch import torchrun_command
from giblet_hpc.jobs.node.processes import Child
from giblet_hpc.jobs.schedulers import registry
from giblet_hpc.jobs.schedulers.base import Place
from giblet_hpc.runs.environment import GPUS, HOST, TOKEN

MEASURE_SECONDS = 300.0
SELFCHECK_SECONDS = 180.0
VISIBLE_SECONDS = 60.0
SLOW_SECONDS = 10.0
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class NodeCheck:
    """The doctor's job on a node.

    Parameters
    ----------
    run_folder : str
        Folder of this check-up, which all nodes share.
    ranks : int
        Processes on each node.
    gpus : int
        GPUs on each node.
    """

    run_folder: str
    ranks: int
    gpus: int
    title: str = "doctor"

    def __call__(self) -> int:
        """Examine this node, then take part in the measurement; return its exit code."""
        place, folder = registry.here(), Path(self.run_folder)
        profile = profiles.load(folder / "cluster.yaml")
        write_text(folder / f"hello-{place.node}", place.host)
        found = examine.examine(profile, [folder], nodes=place.nodes, gpus=self.gpus, on_node=True)
        found += others(folder, place)
        if profile.image and not any(f.check == "image" and f.level == "fail" for f in found):
            found.append(self._look_into_image(profile))
        network = fabric.detect()
        facts = {
            "host": place.host, "findings": [asdict(finding) for finding in found],
            "network": network.network, "gigabits": network.gigabits,
        }  # fmt: skip
        write_json(folder / f"node-{place.node}.json", facts)
        if self.ranks * place.nodes == 1:
            return 0
        chosen = fabric.choose(network, nodes=place.nodes, gpus=self.gpus)
        if profile.fabric == "none":
            chosen = []
        code = self._measure(place, profile, {setting.name: setting.value for setting in chosen})
        write_json(folder / f"node-{place.node}.json", {**facts, "code": code})
        return code

    def _look_into_image(self, profile: Cluster) -> Finding:
        """Run the image's own checks on this node."""

        def make(python: str) -> list[str]:
            return [python, "-P", "-m", "giblet_hpc.stages.selfcheck"]

        try:
            with self._inside(profile, make, {GPUS: str(self.gpus)}) as (command, environment):
                done = subprocess.run(
                    command, env=environment, capture_output=True, text=True,
                    timeout=SELFCHECK_SECONDS, check=False,
                )  # fmt: skip
        except subprocess.TimeoutExpired:
            why = f"no answer within {SELFCHECK_SECONDS:.0f} s"
            fix = "is the image on a file system that this node reads fast?"
            return Finding("image", "fail", why, fix)
        except (GibletError, OSError) as error:
            return Finding("image", "fail", str(error), getattr(error, "hint", ""))
        return judge_selfcheck(done.returncode, done.stdout, done.stderr)

    @contextlib.contextmanager
    def _inside(
        self, profile: Cluster, make: Callable[[str], list[str]], settings: Mapping[str, str]
    ) -> Iterator[tuple[list[str], dict[str, str]]]:
        """Yield a command and its environment as a run's would be, with a folder of its own."""
        folder = Path(self.run_folder)
        with tempfile.TemporaryDirectory(prefix="giblet-") as local:
            yield start.container_command(
                profile, make, settings, folders=Folders([folder]), local=Path(local),
                workdir=folder, gpus=self.gpus,
            )  # fmt: skip

    def _measure(self, place: Place, profile: Cluster, chosen: Mapping[str, str]) -> int:
        folder = Path(self.run_folder)
        token = uuid.uuid4().hex[:24]
        settings = start.variables("train", profile, ranks=self.ranks, chosen=chosen) | {
            TOKEN: token, HOST: place.host, "NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT,NET",
            "NCCL_DEBUG_FILE": str(folder / "nccl.%h.%p.log"), GPUS: str(self.gpus),
            **start.meeting(place, self.ranks, folder / "rendezvous.json"),
        }  # fmt: skip

        def make(python: str) -> list[str]:
            inner = ["giblet_hpc.stages.allreduce", str(folder / "allreduce.json")]
            return torchrun_command(inner, self.ranks, python=python)

        with (
            self._inside(profile, make, settings) as (command, environment),
            (folder / f"node-{place.node}.log").open("w") as log,
        ):
            child = Child(command, environment, token=token, output=log)
            end = time.monotonic() + MEASURE_SECONDS
            while child.code is None and time.monotonic() < end:
                time.sleep(POLL_SECONDS)
            child.end()
        return child.code or 0


def others(folder: Path, place: Place, *, timeout: float = VISIBLE_SECONDS) -> list[Finding]:
    """Look for what the other nodes of the job have written.

    Parameters
    ----------
    folder : Path
        In which each node has written ``hello-K``.
    place : Place
    timeout : float
        Seconds until a file that does not show counts as unseen.
    """
    if place.nodes == 1:
        return []
    begin = time.monotonic()
    unseen = set(range(place.nodes))
    while unseen and time.monotonic() - begin < timeout:
        # Reading the folder anew is what makes a network file system look.
        names = {path.name for path in folder.iterdir()}
        unseen = {node for node in unseen if f"hello-{node}" not in names}
        time.sleep(POLL_SECONDS if unseen else 0.0)
    seconds = time.monotonic() - begin
    if unseen:
        numbers = ", ".join(map(str, sorted(unseen)))
        return [
            Finding("shared files", "fail",
                    f"after {seconds:.0f} s nothing of node {numbers} is to be seen in {folder}",
                    "runs and stores need a file system that all nodes share, and that shows files "
                    "of other nodes within seconds")
        ]  # fmt: skip
    seen = f"files of all {place.nodes} nodes were there after {seconds:.1f} s"
    if seconds > SLOW_SECONDS:
        why = "the nodes started apart, or the file system keeps old listings: tell the admin"
        return [Finding("shared files", "warn", seen, why)]
    return [Finding("shared files", "ok", seen)]


def judge_selfcheck(code: int, said: str, errors: str) -> Finding:
    """Return what the image's own checks amount to.

    Parameters
    ----------
    code : int
        Exit code of `giblet_hpc.stages.selfcheck`.
    said, errors : str
        Its output.
    """
    lines = said.splitlines()
    bad = [line for line in lines if not line.startswith("ok")]
    if code == 0 and lines and not bad:
        skipped = [line.split()[1].rstrip(":") for line in lines if ": skipped" in line]
        more = f"; not looked at: {', '.join(skipped)}" if skipped else ""
        return Finding("image", "ok", f"{len(lines) - len(skipped)} checks inside hold{more}")
    told = "; ".join(bad) or " ".join(errors.split())[-300:] or f"exit code {code}"
    fix = "build it anew with container/build.sh; `giblet-hpc image check` shows more"
    return Finding("image", "fail", f"inside the image: {told}", fix)
