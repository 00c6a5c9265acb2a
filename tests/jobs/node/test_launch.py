"""The commands of a stage's processes."""

from __future__ import annotations

from pathlib import Path

from giblet_hpc.jobs.node import launch


def test_the_ranks_of_a_node_are_torchruns_and_of_others_it_knows_nothing() -> None:
    command = launch.stage_command("train", Path("/r"), ranks=4, nodes=2, python="python")
    assert command[:4] == ["python", "-P", "-m", "giblet_hpc.stages.torchrun"]
    assert command[4] == "--nproc-per-node=4"
    assert command[-4:] == ["-m", "giblet_hpc.stages", "train", "/r"]
    assert not [word for word in command if word.startswith(("--rdzv", "--master", "--nnodes"))]


def test_one_process_needs_no_torchrun() -> None:
    for stage in ("train", "evaluate"):
        command = launch.stage_command(stage, Path("/r"), python="python")
        assert command == ["python", "-P", "-m", "giblet_hpc.stages", stage, "/r"]
    command = launch.stage_command("preprocess", Path("/r"), ranks=4, python="p", part="plan")
    assert command == ["p", "-P", "-m", "giblet_hpc.stages", "preprocess", "/r", "--part", "plan"]
