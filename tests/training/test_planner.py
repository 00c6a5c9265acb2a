"""Plans: counts are those of the networks, what does not fit is said, the fastest is chosen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from giblet_hpc.config import io
from giblet_hpc.config.run import RunConfig
from giblet_hpc.plans.hardware import GIB, GPUS, LINKS, Place
from giblet_hpc.training import network_size, planner
from giblet_hpc.training.expected_size import expected_size

CONFIGS = Path(__file__).parents[2] / "configs"
LINK = (LINKS["pcie"], LINKS["infiniband"])
A6000 = Place(GPUS["a6000"], 8, 1, *LINK)
H100 = Place(GPUS["h100"], 4, 1, *LINK)
H200 = Place(GPUS["h200"], 1, 1, *LINK)
ALL_FRAMES = "features.video.frame_skip=1"


def dense(*more: str) -> RunConfig:
    settings = ["model.parallel=ddp", "train.batch_windows=16", *more]
    return io.load(CONFIGS / "sherlock_dense.yaml", settings)


@pytest.mark.parametrize(
    ("settings", "voxels", "weights"), [((), 83_138, 3_500_188_290), ((ALL_FRAMES,), 77_347,
                                                                      8_359_824_355)]
)  # fmt: skip
@pytest.mark.parametrize("place", [A6000, H100, H200], ids=["8 x 48", "4 x 80", "1 x 141"])
def test_the_originals_networks_in_every_mode(
    settings: tuple[str, ...], voxels: int, weights: int, place: Place
) -> None:
    config = dense(*settings)
    size = expected_size(config, voxels=voxels, fps=25.0)
    assert network_size.network_of(config, size).weights == weights
    found = planner.estimates(config, size, place)
    held = {mode: e.memory["parameters"] / 4 for mode, e in found.items()}
    assert held["ddp"] == weights
    assert held["fsdp"] == weights / place.ranks
    # 0.11 billion, of small layers, are on all ranks.
    assert weights / place.ranks <= held["tensor"] < weights / place.ranks + 1.2e8
    for mode, estimate in found.items():
        assert estimate.memory["optimizer"] == 8 * held[mode]
        assert estimate.checkpoint == 12 * weights
        too_much = estimate.gpu_bytes > place.gpu.memory * GIB
        assert bool(estimate.obstacle) == (too_much or (mode != "ddp" and place.ranks == 1))


def test_the_fastest_that_fits_is_chosen() -> None:
    config = dense()
    size = expected_size(config, voxels=83_138, fps=25.0)
    found = planner.estimates(config, size, A6000)
    best = planner.choose(found)
    assert best is not None and best.mode == "tensor"
    assert found["ddp"].obstacle == "60.2 GiB a GPU: more than 48"
    assert found["tensor"].sent < found["ddp"].sent / 100
    one = planner.choose(planner.estimates(config, size, H200))
    assert one is not None and one.mode == "ddp"


def test_when_nothing_fits_the_next_larger_place_is_named() -> None:
    config = dense(ALL_FRAMES)
    size = expected_size(config, voxels=77_347, fps=25.0)
    small = replace(A6000, gpus=2)
    assert planner.choose(planner.estimates(config, size, small)) is None
    found = planner.fitting_place(config, size, small, most=8)
    assert found is not None
    where, best = found
    assert (where.gpus, where.nodes) == (4, 1)
    assert best.mode == "tensor" and best.gpu_bytes < 48 * GIB
    tiny = Place(replace(GPUS["a6000"], memory=1.0), 1, 1, *LINK)
    assert planner.fitting_place(config, size, tiny, most=8) is None


def test_a_nodes_memory_and_the_batch_count_too() -> None:
    config = dense("train.batch_windows=12")
    size = expected_size(config, voxels=83_138, fps=25.0)
    found = planner.estimates(config, size, A6000)
    assert "must be a multiple of ranks" in found["ddp"].obstacle
    assert not found["tensor"].obstacle, "one team sees the whole batch"
    few = planner.estimates(config, size, replace(A6000, node_memory=40.0))
    assert few["tensor"].obstacle.endswith("GiB a node: more than 40")


def test_teams_of_several_nodes_share_batches() -> None:
    config = dense()
    size = expected_size(config, voxels=83_138, fps=25.0)
    one, two = (planner.estimates(config, size, replace(A6000, nodes=n))["tensor"] for n in (1, 2))
    assert two.memory["parameters"] == one.memory["parameters"]
    assert two.memory["activations"] == one.memory["activations"] / 2
    assert two.sent == pytest.approx(one.sent / 2 + 4 * one.memory["parameters"] / 4)


@pytest.mark.parametrize("config", ["demo.yaml", "sherlock_production.yaml"])
def test_the_temporal_network_fits_every_gpu(config: str) -> None:
    loaded = io.load(CONFIGS / config, ["train.batch_windows=8"])
    size = expected_size(loaded)
    assert {"voxels", "frames a second"} <= set(size.assumed)
    found = planner.estimates(loaded, size, A6000)
    assert found["tensor"].obstacle == "only for model.kind dense"
    best = planner.choose(found)
    assert best is not None and best.mode == "ddp"
    assert best.memory["activations"] > 0


def test_a_rank_with_nobody_to_share_with_is_judged_as_it_trains() -> None:
    one, eight = replace(A6000, gpus=1), A6000
    two_nodes = replace(A6000, gpus=1, nodes=2)
    for mode, place, used in (
        ("fsdp", one, "ddp"), ("fsdp", eight, "fsdp"), ("fsdp", two_nodes, "fsdp"),
        ("tensor", one, "ddp"), ("tensor", two_nodes, "ddp"), ("tensor", eight, "tensor"),
        ("auto", one, "auto"),
    ):  # fmt: skip
        assert planner.used_mode(dense(f"model.parallel={mode}"), place) == used
