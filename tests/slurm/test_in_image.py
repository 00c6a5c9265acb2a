"""The whole story inside the image, on a real Slurm with the real SIF file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from giblet_hpc.files import read_json
from tests.container.building import build
from tests.slurm.conftest import (
    PROFILE,
    SlurmCli,
    options_of,
    processes_of,
    queue,
    wait_until,
)
from tests.slurm.test_lab import TWO, USERS, as_user, members  # noqa: F401 - a fixture
from tests.slurm.test_survival import preempt, ranks_of, step_of

pytestmark = [pytest.mark.slurm, pytest.mark.container]


@pytest.fixture
def lab(study_folder: Path, cluster: Any, members: None) -> Iterator[Path]:  # noqa: F811
    """A folder of an ordinary user's, with a space in its name and a study in it."""
    folder = Path(f"/tmp/giblet image {os.getpid()}")
    folder.mkdir()
    shutil.copytree(study_folder, folder / "data")
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, USERS[0])
        path.chmod(0o755 if path.is_dir() else 0o644)
    yield folder
    subprocess.run(["scancel", f"--user={USERS[0]}"], check=True)
    wait_until(lambda: not queue(), 60)
    wait_until(lambda: not processes_of(folder), 30)
    shutil.rmtree(folder)


def test_from_raw_files_to_a_report_in_the_image(lab: Path) -> None:
    """Preprocess, train on two nodes, be preempted, go on, evaluate: all inside, as a user.

    For a user the image is mounted by a process of its own, which Slurm's signal reaches too.
    """
    sif = build().sif
    cli = SlurmCli(lab, lab / "profile.yaml")
    cli.profile.write_text(PROFILE + f"image: {sif}\n")
    options = options_of(lab / "data", lab / "store.zarr", ["train.epochs=300"])
    as_user(
        USERS[0], cli, "submit", "pipeline", *options, "--name", "inside", "--cluster",
        str(cli.profile), *TWO,
    )  # fmt: skip
    wait_until(lambda: step_of(cli, "inside") > 5, 300)
    for process in ranks_of(cli).values():
        assert Path(f"/proc/{process}/root/opt/giblet").is_dir(), "the rank is in the image"
    assert not Path("/opt/giblet").exists(), "which the host is not"
    assert processes_named("squashfuse_ll"), "which a process of the user's serves"
    preempt(cli, "inside")
    cli.wait("inside", "train", "complete", 300)
    cli.wait("inside", "evaluate", "complete", 300)
    first, *_, last = (attempt.facts() for attempt in cli.attempts("inside", "train"))
    assert first["outcome"] == "interrupted"
    assert first["why_asked"] == "SIGTERM"
    assert last["step_from"] == first["step_to"] > 0, "no step is made twice"
    paths = cli.paths("inside")
    digest = f"sha256:{hashlib.sha256(sif.read_bytes()).hexdigest()}"
    folder = paths.checkpoints()
    manifest = read_json(folder / (folder / "latest").read_text() / "manifest.json")
    assert manifest["maker"]["image"] == digest
    recorded = read_json(paths.root / "provenance.json")["attempts"]
    assert {attempt["image"]["digest"] for attempt in recorded} == {digest}
    assert json.loads(cli("scores", "inside", "--json").stdout)
    assert paths.report.is_file()
    checkup = ["doctor", "--cluster", str(cli.profile), "--ranks", "4", "--nodes", "2", "--job"]
    found = json.loads(as_user(USERS[0], cli, *checkup, "--json").stdout)
    assert not [row for row in found if row["level"] == "fail"]
    inside = [row["seen"] for row in found if "checks inside hold" in row["seen"]]
    assert [seen[:3] for seen in inside] == ["n1:", "n2:"]
    assert all("not looked at:" in seen and "gpu" in seen for seen in inside)
    wait_until(lambda: not queue())
    wait_until(lambda: not processes_named("squashfuse_ll"), 30)


def processes_named(name: str) -> list[int]:
    """Return the ids of processes that run a program."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "comm").read_text().strip() == name[:15]:
                found.append(int(folder.name))
        except OSError:
            continue
    return found
