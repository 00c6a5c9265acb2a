from __future__ import annotations

import pytest

from giblet_hpc.config.cluster import Cluster, StageResources, Stages, minutes_of
from giblet_hpc.errors import ConfigError
from giblet_hpc.jobs.profiles import local_cluster
from giblet_hpc.jobs.record.resources import (
    Resources,
    default_ranks,
    for_parallel,
    for_preprocess,
    spread,
    walltime,
)


def test_gpus_are_spread_over_nodes() -> None:
    profile = Cluster(name="c", gpus_per_node=4)

    def size(gpus: int | None = None, nodes: int | None = None) -> Resources:
        return spread(profile, gpus=gpus, ranks=None, nodes=nodes)

    assert size(gpus=8) == Resources(4, 2, 4)
    assert size(gpus=2) == Resources(2, 1, 2)
    assert size(gpus=6, nodes=3) == Resources(2, 3, 2)
    assert size() == Resources(4, 1, 4)
    with pytest.raises(ConfigError, match="6 processes do not spread evenly over 4 nodes"):
        size(gpus=6, nodes=4)
    with pytest.raises(ConfigError, match="have 4"):
        size(gpus=8, nodes=1)
    with pytest.raises(ConfigError, match="has no GPUs"):
        spread(Cluster(name="c"), gpus=8, ranks=None, nodes=None)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("1:30:00", 90),
        ("2-00", 2880),
        ("2-12", 3600),
        ("1-12:30", 2190),
        ("1:30", 2),
        ("0:45", 1),
        ("1-0:30:30", 1471),
    ],
)
def test_walltimes(text: str, minutes: int) -> None:
    assert minutes_of(text) == minutes
    assert Cluster(name="c", time=text).time == text


def test_one_machine_is_asked_for_its_gpus() -> None:
    local = local_cluster()
    assert spread(local, gpus=2, ranks=None, nodes=None, default=1) == Resources(2, 1, 2)
    assert spread(local, gpus=None, ranks=None, nodes=None, default=3) == Resources(3)
    own = Cluster(name="own", scheduler="local", gpus_per_node=2, runtime="docker", image="x")
    assert spread(own, gpus=None, ranks=None, nodes=None, default=1) == Resources(2, 1, 2)
    assert spread(own, gpus=None, ranks=3, nodes=None, default=1) == Resources(3)


def test_a_walltime_within_the_lead_is_refused() -> None:
    profile = Cluster(name="c", time="1:00:00", lead_seconds=180)
    assert walltime(profile, None) == 60
    assert walltime(profile, "4") == 4
    with pytest.raises(ConfigError, match="a walltime of 180 s leaves nothing to work in"):
        walltime(profile, "0:03:00")


def test_visible_gpus_give_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3,5")
    assert default_ranks(local_cluster()) == 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert default_ranks(local_cluster()) == 1


LARGE = Cluster(
    name="large", gpus_per_node=4, cpus_per_node=64, memory_gb_per_node=480, time="8:00:00"
)


def test_training_asks_for_the_share_of_a_node_that_its_gpus_are() -> None:
    asked = for_parallel(LARGE, "train", Resources(2, 1, 2))
    assert (asked.cpus, asked.memory_gb, asked.gpus, asked.minutes) == (32, 240, 2, 480)


def test_preprocess_asks_for_little_and_a_gpu_where_a_network_computes() -> None:
    plain = for_preprocess(LARGE, wants_gpu=False)
    assert (plain.ranks, plain.cpus, plain.memory_gb, plain.gpus) == (1, 8, 60, 0)
    assert for_preprocess(LARGE, wants_gpu=True).gpus == 1
    without = Cluster(name="c", cpus_per_node=4)
    assert for_preprocess(without, wants_gpu=True) == Resources(1, cpus=4, minutes=240)


def test_a_stage_may_ask_for_something_else() -> None:
    own = StageResources(
        cpus_per_node=2, memory_gb_per_node=100, gpus_per_node=0, time="30", partition="cpu"
    )
    profile = LARGE.model_copy(update={"stages": Stages(preprocess=own)})
    asked = for_preprocess(profile, wants_gpu=True)
    assert asked == Resources(1, gpus=0, cpus=2, memory_gb=100, minutes=30, partition="cpu")
    assert for_parallel(profile, "train", Resources(4, 1, 4)).partition is None
