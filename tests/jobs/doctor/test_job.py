"""What the doctor makes of measurements, and of nodes that say nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from giblet_hpc.files import read_json, write_json
from giblet_hpc.jobs.doctor import job as checkup
from giblet_hpc.jobs.record.resources import Resources
from giblet_hpc.stages.allreduce import bus_bandwidth

GIB = 2**30


def measured(speed: float, *, backend: str = "nccl", scope: str = "all") -> dict[str, Any]:
    row = {"scope": scope, "ranks": 16, "bytes": GIB, "seconds": 1.0, "gigabytes_per_second": speed}
    return {"backend": backend, "rows": [row], "clocks": {"node 0 (n1)": 100.0}}


def node(network: str = "InfiniBand", gigabits: float = 400.0) -> dict[str, Any]:
    return {"network": network, "gigabits": gigabits}


def test_bus_bandwidth_is_nccl_tests_own() -> None:
    """8 ranks, 1 GB in 4 ms: 250 GB/s of data, 437.5 GB/s on the bus."""
    assert bus_bandwidth(10**9, 0.004, 8) == pytest.approx(437.5)
    assert bus_bandwidth(10**9, 0.004, 2) == pytest.approx(250.0)


@pytest.mark.parametrize(
    ("speed", "best", "level"),
    [(40.0, 0.0, "ok"), (20.0, 0.0, "warn"), (40.0, 90.0, "fail"), (46.0, 90.0, "ok")],
)
def test_speed_against_promise_and_past(speed: float, best: float, level: str) -> None:
    (finding,) = checkup.judge(measured(speed), node(), {"IB"}, {f"all {GIB}": best})
    assert finding.level == level
    assert f"1024 MiB over 16 ranks by nccl: {speed:.2f} GB/s" in finding.seen


def test_sockets_on_an_rdma_network_are_refused() -> None:
    found = checkup.judge(measured(40.0), node(), {"Socket"}, {})
    assert found[0].level == "fail"
    assert "sockets although there is InfiniBand" in found[0].seen
    assert checkup.judge(measured(1.0), node("Ethernet", 0.0), {"Socket"}, {})[0].level == "ok"


def test_a_node_that_writes_nothing_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "node-0.json", {"host": "n1", "findings": [], **node(), "code": 0})
    found = checkup.collect(tmp_path, Resources(1, 2), remembered=tmp_path / "b.json", key="k")
    assert [finding.level for finding in found] == ["fail"]
    assert "node 1 wrote nothing" in found[0].seen


def test_the_best_is_remembered(tmp_path: Path) -> None:
    write_json(tmp_path / "node-0.json", {"host": "n1", "findings": [], **node(), "code": 0})
    (tmp_path / "nccl.n1.7.log").write_text("n1:7:7 [0] NCCL INFO Using network Socket\n")
    for speed, kept in ((40.0, 40.0), (44.0, 44.0), (30.0, 44.0)):
        write_json(tmp_path / "allreduce.json", measured(speed))
        found = checkup.collect(tmp_path, Resources(16), remembered=tmp_path / "b.json", key="k")
        assert [f.level for f in found] == ["ok"], "sockets inside one node are no fault"
        assert read_json(tmp_path / "b.json") == {"k": {f"all {GIB}": kept}}


def test_ranks_that_fail_point_to_their_log(tmp_path: Path) -> None:
    write_json(tmp_path / "node-0.json", {"host": "n1", "findings": [], **node(), "code": 1})
    (finding,) = checkup.collect(tmp_path, Resources(2), remembered=tmp_path / "b.json", key="k")
    assert finding.level == "fail"
    assert "node-0.log" in finding.fix


def test_clocks_that_are_apart() -> None:
    (finding,) = checkup.clocks({"node 0 (n1)": 100.0, "node 1 (n2)": 130.5})
    assert finding.level == "warn"
    assert "30.50 s apart: node 0 (n1) is behind node 1 (n2)" in finding.seen
    assert checkup.clocks({"node 0 (n1)": 100.0, "node 1 (n2)": 100.1})[0].level == "ok"
    assert not checkup.clocks({"node 0 (n1)": 100.0})
