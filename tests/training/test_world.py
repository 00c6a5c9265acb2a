from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch

from giblet_hpc.errors import NodeError
from giblet_hpc.files import write_json
from giblet_hpc.runs.attempt_paths import AttemptPaths
from giblet_hpc.training import world as worlds
from giblet_hpc.training.world import World

CPU = torch.device("cpu")


def test_a_world_of_one() -> None:
    world = World(0, 0, 1, CPU)
    assert world.any(True)
    assert not world.any(False)
    assert world.broadcast("x") == "x"
    assert world.gather(3) == [3]


def test_ranks_without_the_gpus_they_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIBLET_GPUS", "4")
    monkeypatch.setattr(worlds.torch.cuda, "is_available", lambda: False)
    with (
        pytest.raises(NodeError, match="this job has GPUs"),
        worlds.world(timeout=timedelta(seconds=1)),
    ):
        pass


def test_other_nodes_see_that_node_0_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not worlds._node_0_has_ended(), "without a supervisor nobody writes it down"
    monkeypatch.setenv("GIBLET_ATTEMPT", str(tmp_path))
    files = AttemptPaths(tmp_path)
    assert not worlds._node_0_has_ended()
    write_json(files.node(0), {"host": "n1"})
    assert not worlds._node_0_has_ended()
    write_json(files.node(0), {"host": "n1", "ended": 1.0})
    assert worlds._node_0_has_ended()
    write_json(files.node(0), {"host": "n1"})
    write_json(files.agent(0), {"ended": []})
    assert worlds._node_0_has_ended()
