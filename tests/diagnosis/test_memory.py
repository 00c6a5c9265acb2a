"""A plan of memory beside measurements."""

from __future__ import annotations

import pytest

from giblet_hpc.cli.diagnose_network import ONE_GPU
from giblet_hpc.diagnosis.memory import MemoryCheck
from giblet_hpc.findings import Finding
from giblet_hpc.plans.hardware import GIB
from giblet_hpc.training import planner
from tests.diagnosis.test_network import planned


def look(gpu: float = 0.0, node: float = 0.0, asked: float | None = None) -> dict[str, Finding]:
    estimate = planner.estimates(*planned("demo.yaml"), ONE_GPU)["ddp"]
    check = MemoryCheck(estimate, ONE_GPU, gpu * estimate.gpu_bytes, node * GIB, asked)
    assert check.facts()["measured"]["node_bytes"] == (node * GIB or None)
    return {one.check: one for one in check.findings()}


def test_before_anything_is_measured() -> None:
    found = look()
    assert {one.level for one in found.values()} == {"ok"}
    assert found["GPU"].seen.startswith("ddp: ")
    assert found["GPU"].seen.endswith("not measured yet")


@pytest.mark.parametrize(("gpu", "level"), [(0.8, "ok"), (1.2, "ok"), (1.5, "warn")])
def test_a_measurement_is_compared(gpu: float, level: str) -> None:
    assert look(gpu)["GPU"].level == level


def test_a_network_that_does_not_fit() -> None:
    estimate = planner.estimates(
        *planned("sherlock_dense.yaml", voxels=85_000, subjects=17), ONE_GPU
    )
    found = {o.check: o for o in MemoryCheck(estimate["ddp"], ONE_GPU, 0, 0, None).findings()}
    assert found["room"].level == "fail"


@pytest.mark.parametrize(("used", "level"), [(7.9, "warn"), (4.0, "ok")])
def test_what_a_job_asked_for(used: float, level: str) -> None:
    assert look(node=used, asked=8.0)["asked"].level == level
