"""Small real studies that tests share."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes is the machine's affair.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# The machine may have Slurm; only the tests that start it use it.
os.environ.setdefault("GIBLET_CLUSTER", "local")

TINY = [
    "features.video={height: 18, width: 32, frame_skip: 12}",
    "features.audio={kind: mel, mel_bands: 8}",
    "features.text={encoder: lsa, dimensions: 6}",
    "model.bottleneck=16",
    "model.temporal={frame_channels: 4, width: 16, code_width: 8, rank: 6, subject_rank: 1,"
    " fir_seconds: 9}",
    "train.epochs=4",
    "train.window_trs=8",
    "train.checkpoint_every=3",
    "train.log_every=2",
    "split.purge_seconds=9",
    "split.validation_fraction=0.25",
    "evaluate.ridge={components: 8, smooth_seconds: [4], penalties: voxel, bands: equal,"
    " partition: false}",
    "evaluate.samples=2",
]


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic study of two runs and three subjects, as files."""
    from giblet_hpc.synthetic import StudySpec, synthesize

    folder = tmp_path_factory.mktemp("study") / "data"
    synthesize(folder, StudySpec(runs=(64, 40), subjects=3, grid=(7, 8, 6)))
    return folder


@pytest.fixture
def tiny_options(study_folder: Path, tmp_path: Path) -> list[str]:
    """Overrides of configs/demo.yaml that make it run in seconds on the synthetic study."""
    return [f"study.root={study_folder}", f"study.store={tmp_path / 'store.zarr'}", *TINY]


class Cli:
    """Runs the command line as a user does, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / "runs"

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-P", "-m", "giblet_hpc.cli", *arguments]

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env={**os.environ, "GIBLET_RUNS": str(self.runs)},
            capture_output=True,
            text=True,
            timeout=1200,
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done


def leave_out(tier: str, why: str) -> None:
    """Skip a test that this machine cannot run, or fail where $GIBLET_REQUIRE names its tier."""
    give_up = pytest.fail if tier in os.environ.get("GIBLET_REQUIRE", "") else pytest.skip
    give_up(why)


@contextlib.contextmanager
def python_for_all() -> Iterator[None]:
    """Let other users reach this Python, for a while."""
    opened = []
    for path in (Path(sys.base_prefix), Path(sys.prefix)):
        for folder in (path, *path.parents):
            mode = folder.stat().st_mode
            if not mode & 0o001:
                folder.chmod(mode | 0o001)
                opened.append((folder, mode))
    try:
        yield
    finally:
        for folder, mode in opened:
            folder.chmod(mode)


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    yield Cli(tmp_path)


@pytest.fixture
def demo_config() -> str:
    return str(Path(__file__).parents[1] / "configs" / "demo.yaml")


def sets(options: list[str]) -> list[str]:
    """Turn overrides into command line arguments."""
    return [part for option in options for part in ("--set", option)]
