"""A real Slurm on this machine, and a command line that submits to it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from giblet_hpc.jobs.record import lease
from giblet_hpc.jobs.record.attempts import Attempt, all_attempts
from giblet_hpc.jobs.schedulers import sealed
from giblet_hpc.runs.environment import TOKEN
from giblet_hpc.runs.paths import RunPaths, Stage
from tests.conftest import TINY, Cli, leave_out, sets

ROOT = Path(__file__).parents[2]
PROGRAMS = ["slurmctld", "slurmd", "munged", "sbatch", "srun", "slurmdbd", "mariadbd"]
PROFILE = """\
scheduler: slurm
partition: main
gpus_per_node: 0
cpus_per_node: 4
time: "10"
lead_seconds: 60
hang_seconds: 12
environment: {OMP_NUM_THREADS: "1"}
"""


def cluster_module() -> Any:
    file = ROOT / "slurm" / "testcluster" / "cluster.py"
    spec = importlib.util.spec_from_file_location("testcluster", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["testcluster"] = module
    spec.loader.exec_module(module)
    return module


def start_cluster(folder: Path, *, accounting: bool) -> Any:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        reason = f"needs {', '.join(missing)}" if missing else "starting slurmd needs root"
        leave_out("slurm", f"{reason}; slurm/testcluster/install.sh installs what is missing")
    cluster = cluster_module().Cluster(folder)
    try:
        cluster.up(accounting=accounting)
    except BaseException:
        cluster.down()
        raise
    return cluster


@contextlib.contextmanager
def slurm_cluster(folder: Path, *, accounting: bool) -> Iterator[Any]:
    """A Slurm of its own, which programs that are started here speak with."""
    running = start_cluster(folder, accounting=accounting)
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(running.conf)
    try:
        yield running
    finally:
        running.down()
        del os.environ["SLURM_CONF"]
        if before is not None:
            os.environ["SLURM_CONF"] = before
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Two nodes without accounting; sockets need a short path."""
    with slurm_cluster(Path(f"/tmp/giblet-slurm-{os.getpid()}"), accounting=False) as running:
        yield running
        subprocess.run(["scancel", "--user=root"], check=False)


class SlurmCli(Cli):
    """The command line, submitting to the test cluster."""

    def __init__(self, folder: Path, profile: Path) -> None:
        super().__init__(folder)
        self.profile = profile

    def paths(self, name: str) -> RunPaths:
        return RunPaths(self.runs / name)

    def state(self, name: str, stage: Stage) -> dict[str, Any]:
        return dict(self.paths(name).stage_state(stage))

    def attempts(self, name: str, stage: str) -> list[Attempt]:
        return [a for a in all_attempts(self.paths(name)) if a.facts().get("stage") == stage]

    def wait(self, name: str, stage: Stage, status: str, seconds: float = 240.0) -> dict[str, Any]:
        """Wait until a stage has a status and its jobs are gone."""

        def there() -> bool:
            state = self.state(name, stage)
            if state.get("status") in ("failed", "stopped") and status not in ("failed", "stopped"):
                raise AssertionError(f"{state}\n{self('logs', name, check=False).stdout[-3000:]}")
            return state.get("status") == status and lease.holder(self.paths(name)) is None

        wait_until(there, seconds)
        return self.state(name, stage)


def wait_until(condition: Callable[[], Any], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.1)


def processes_of(folder: Path) -> list[str]:
    """Command lines of all processes that belong to runs under a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            environment = (entry / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        ours = TOKEN in environment or sealed.MODULE in command
        if ours and str(folder) in command:
            found.append(command)
    return found


@pytest.fixture(scope="session")
def store(study_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that preprocess has filled, which runs share."""
    folder = tmp_path_factory.mktemp("shared")
    cli = Cli(folder)
    cli("run", "preprocess", "first", *options_of(study_folder, folder / "store.zarr", []))
    return folder / "store.zarr"


def options_of(study: Path, store: Path, more: list[str]) -> list[str]:
    """Command line arguments of a run of 8 ranks on the synthetic study."""
    settings = [
        f"study.root={study}", f"study.store={store}", *TINY,
        "train.batch_windows=8", "train.window_trs=4", "train.keep_last=3",
        "train.checkpoint_every=5", *more,
    ]  # fmt: skip
    return ["--config", str(ROOT / "configs" / "demo.yaml"), *sets(settings)]


@pytest.fixture
def slurm(cluster: Any, tmp_path: Path) -> Iterator[SlurmCli]:
    """A command line whose profile is the test cluster; afterwards nothing may be left."""
    profile = tmp_path / "profile.yaml"
    profile.write_text(PROFILE)
    cli = SlurmCli(tmp_path, profile)
    yield cli
    subprocess.run(["scancel", "--user=root"], check=True)
    wait_until(lambda: not queue(), 60)
    wait_until(lambda: not processes_of(tmp_path), 30)


def queue() -> list[str]:
    done = subprocess.run(
        ["squeue", "-h", "-o", "%i %T %j"], check=True, capture_output=True, text=True
    )
    return done.stdout.splitlines()


class Prepared:
    """Runs that are preprocessed and can be trained."""

    def __init__(self, cli: SlurmCli, study: Path, store: Path) -> None:
        self._cli, self._study, self._store = cli, study, store

    def __call__(self, name: str, *more: str) -> None:
        """Make a run whose preprocess is complete."""
        arguments = options_of(self._study, self._store, list(more))
        self._cli("run", "preprocess", name, *arguments)


@pytest.fixture
def prepared(slurm: SlurmCli, study_folder: Path, store: Path) -> Prepared:
    return Prepared(slurm, study_folder, store)
