from __future__ import annotations

import pytest

from giblet_hpc.errors import ConfigError
from giblet_hpc.plans.hardware import GPUS, LINKS, Place, gpu_of, link_of


@pytest.mark.parametrize(
    ("name", "memory", "expected"),
    [
        ("a6000", None, ("a6000", 48, 768)),
        ("nvidia_a100-sxm4-80gb", None, ("nvidia_a100-sxm4-80gb", 80, 2039)),
        ("A100-40", None, ("A100-40", 40, 1555)),
        ("NVIDIA H200", 139.7, ("NVIDIA H200", 139.7, 4800)),
        ("h100_nvl", None, ("h100_nvl", 94, 3900)),
        ("NVIDIA RTX 6000 Ada Generation", None, ("NVIDIA RTX 6000 Ada Generation", 48, 960)),
        ("own", 24, ("own", 24, 768)),
        ("a4000", 16, ("a4000", 16, 768)),
        ("a100_1g.10gb", 10, ("a100_1g.10gb", 10, 768)),
        (None, 24, ("GPU", 24, 768)),
    ],
)
def test_gpus_by_name_or_memory(
    name: str | None, memory: float | None, expected: tuple[str, float, float]
) -> None:
    found = gpu_of(name, memory)
    assert (found.name, found.memory, found.bandwidth) == expected


def test_a_gpu_that_is_not_known() -> None:
    for name in ("k20", "rtx_a4000", "a100_1g.10gb"):
        with pytest.raises(ConfigError, match=f"the memory of GPU {name} is not known") as caught:
            gpu_of(name, None)
        assert "--gpu-memory" in caught.value.hint
    with pytest.raises(ConfigError, match="no GPU is named"):
        gpu_of(None, None)


def test_links() -> None:
    assert link_of("nvlink") == LINKS["nvlink"]
    assert link_of("12.5") == 12.5
    for wrong in ("wire", "-1", "0"):
        with pytest.raises(ConfigError, match="is no link"):
            link_of(wrong)


def test_several_nodes_are_as_fast_as_what_is_between_them() -> None:
    one = Place(GPUS["h100"], 8, 1, 250.0, 22.0)
    two = Place(GPUS["h100"], 8, 2, 250.0, 22.0)
    assert (one.ranks, one.between_all) == (8, 250.0)
    assert (two.ranks, two.between_all) == (16, 22.0)
