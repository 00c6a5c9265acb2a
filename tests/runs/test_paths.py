from __future__ import annotations

from pathlib import Path

import pytest

from giblet_hpc.config import io
from giblet_hpc.errors import ConfigError
from giblet_hpc.runs.environment import ATTEMPT
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.runs.progress import Progress


@pytest.fixture
def paths(tmp_path: Path, demo_config: str) -> RunPaths:
    paths = RunPaths(tmp_path / "a run")
    paths.create(io.load(Path(demo_config)))
    return paths


def test_a_changed_config_needs_another_name(paths: RunPaths, demo_config: str) -> None:
    paths.create(io.load(Path(demo_config)))
    with pytest.raises(ConfigError, match=r"train.lr: .* -> 0.5") as caught:
        paths.create(io.load(Path(demo_config), ["train.lr=0.5"]))
    assert "--name" in caught.value.hint


def test_progress_has_a_file_of_its_own(paths: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 never writes the stage's record, which its supervisor writes."""
    paths.attempt(1).root.mkdir(parents=True)
    monkeypatch.setenv(ATTEMPT, str(paths.attempt(1).root))
    paths.update_state("train", status="running", attempt=1)
    before = paths.state("train").read_bytes()
    Progress(paths, "train").write(step=5, resumed_from=0)
    Progress(paths, "train").write(status="complete")
    assert paths.state("train").read_bytes() == before
    state = paths.stage_state("train")
    assert (state["status"], state["step"]) == ("running", 5), (
        "the end is for the supervisor to say"
    )
    assert paths.read_progress(1)["status"] == "complete"
    assert paths.read_progress(1)["step"] == 5


def test_without_a_supervisor_the_stage_writes_its_record(paths: RunPaths) -> None:
    Progress(paths, "train").write(status="running", step=5)
    assert paths.stage_state("train")["step"] == 5


def test_each_stage_and_part_has_a_file(paths: RunPaths) -> None:
    paths.update_state("preprocess", status="queued")
    paths.update_state("preprocess", part="subject-01", status="running")
    paths.update_state("train", status="queued")
    assert sorted(path.name for path in paths.state("train").parent.iterdir()) == [
        "preprocess.json", "preprocess.subject-01.json", "train.json",
    ]  # fmt: skip
    assert list(paths.parts()) == ["subject-01"]
    paths.unqueue_later_stages("preprocess")
    assert paths.stage_state("train")["status"] == "not started"


def test_later_stages_that_are_queued(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    paths.update_state("train", status="queued", job="8")
    paths.update_state("evaluate", status="queued", job="9")
    assert paths.queued_later_stages("preprocess") == ["train", "evaluate"]
    paths.unqueue_later_stages("train")
    assert paths.queued_later_stages("preprocess") == ["train"]
    assert paths.stage_state("evaluate")["status"] == "not started"
