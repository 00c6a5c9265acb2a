from __future__ import annotations

from pathlib import Path

import pytest

from giblet_hpc.config import io
from giblet_hpc.config.cluster import Cluster
from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import ConfigError, DataError
from giblet_hpc.jobs.record.resources import Resources
from giblet_hpc.jobs.schedulers.base import NO_ANSWER
from giblet_hpc.jobs.schedulers.slurm import Slurm
from giblet_hpc.jobs.submit.checks import require_possible, require_room
from giblet_hpc.runs.paths import STAGES

PROFILE = Cluster(name="c", memory_gb_per_node=64)


def config_of(demo_config: str, *overrides: str) -> RunConfig:
    return io.load(Path(demo_config), overrides)


def test_a_batch_that_the_ranks_cannot_share(demo_config: str) -> None:
    config = config_of(demo_config, "train.batch_windows=4")
    require_possible(config, STAGES, profile=PROFILE, size=Resources(2, 2))
    with pytest.raises(ConfigError, match="must be a multiple of ranks x accumulation") as caught:
        require_possible(config, STAGES, profile=PROFILE, size=Resources(3))
    assert "train.batch_windows=3" in caught.value.hint
    require_possible(config, ("evaluate",), profile=PROFILE, size=Resources(3))


def test_too_few_trs_for_batch_norm(demo_config: str) -> None:
    config = config_of(
        demo_config, "model.kind=dense", "train.window_trs=1", "train.batch_windows=16"
    )
    for ranks in (1, 2, 16):
        require_possible(config, ("train",), profile=PROFILE, size=Resources(ranks))
    with pytest.raises(ConfigError, match="BatchNorm would see 4 TRs") as caught:
        parts = config_of(
            demo_config, "model.kind=dense", "train.window_trs=1", "train.batch_windows=16",
            "train.accumulation=4",
        )  # fmt: skip
        require_possible(parts, ("train",), profile=PROFILE, size=Resources(4))
    assert "train.batch_windows=32" in caught.value.hint


def test_weights_that_are_not_there(
    demo_config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    config = config_of(demo_config, "features.text={encoder: lab/encoder}")
    with pytest.raises(DataError, match="features.text: weights not found .*: lab/encoder"):
        require_possible(config, STAGES, profile=PROFILE, size=Resources(1))
    inside = PROFILE.model_copy(update={"image": "/images/a.sif"})
    require_possible(config, STAGES, profile=inside, size=Resources(1))
    (tmp_path / "models--lab--encoder").mkdir()
    require_possible(config, STAGES, profile=PROFILE, size=Resources(1))


@pytest.mark.parametrize(
    ("limits", "nodes", "time", "said"),
    [
        ((4, 120), 5, "1:00:00", "5 nodes: the default partition has 4"),
        ((4, 120), 4, "5-00:00:00", "a walltime of 5-00:00:00: .* ends jobs after 2 h"),
        ((4, 120), 4, "2:00:00", ""),
        ((4, 0), 4, "5-00:00:00", ""),
        (NO_ANSWER, 99, "5-00:00:00", ""),
    ],
)
def test_what_a_partition_can_never_start(
    monkeypatch: pytest.MonkeyPatch, limits: object, nodes: int, time: str, said: str
) -> None:
    monkeypatch.setattr(Slurm, "limits", lambda *_: limits)
    size = Resources(2, nodes=nodes)
    if not said:
        require_room(PROFILE, size, time=time)
        return
    with pytest.raises(ConfigError, match=said):
        require_room(PROFILE, size, time=time)
