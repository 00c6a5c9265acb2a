from __future__ import annotations

import pytest

from giblet_hpc.config.cluster import Cluster
from giblet_hpc.jobs.node import supervisor
from giblet_hpc.jobs.record.resources import Resources
from giblet_hpc.jobs.record.task import StageTask


def test_stages_stop_before_the_walltime(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = Cluster(name="c", lead_seconds=100)
    task = StageTask("/runs/a", ("train",), Resources(2, minutes=10))
    endless = StageTask("/runs/a", ("train",), Resources(2))
    monkeypatch.setattr(supervisor.time, "time", lambda: 5000.0)
    assert supervisor.deadline_of(task, profile, None) == 5500.0
    assert supervisor.deadline_of(task, profile, 5300.0) == 5200.0
    assert supervisor.deadline_of(endless, profile, None) is None
