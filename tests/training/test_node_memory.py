"""Where a study is kept: in memory, or on a node's disk, by what is free."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from giblet_hpc.training import node_memory
from giblet_hpc.training.node_memory import NodeMemory, PrivateMemory, memory_for
from giblet_hpc.training.world import World

ALONE = World(0, 0, 1, torch.device("cpu"))


def test_on_disk_no_name_is_left(tmp_path: Path) -> None:
    memory = NodeMemory(ALONE, tmp_path)
    array = memory.array("bold/x", (1000, 20), "float32", lambda values: values.fill(3))
    assert list(tmp_path.iterdir()) == []
    assert array.sum() == 60_000
    assert str(tmp_path) in Path("/proc/self/maps").read_text()


def test_a_file_system_without_nameless_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", 0)
    memory = NodeMemory(ALONE, tmp_path)
    array = memory.array("bold/x", (10,), "int16", lambda values: values.fill(2))
    assert (array.sum(), list(tmp_path.iterdir())) == (20, [])


@pytest.mark.parametrize(("needed", "kind"), [(10, PrivateMemory), (60, NodeMemory)])
def test_what_would_fill_memory_goes_to_disk(
    needed: int, kind: type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(node_memory, "free_memory", lambda: 100.0)
    monkeypatch.setattr(node_memory.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(node_memory, "_is_memory", lambda folder: False)
    memory = memory_for(ALONE, needed)
    assert memory is not None
    assert type(memory) is kind
    values = memory.array("a", (3,), "int16", lambda values: values.fill(1))
    np.testing.assert_array_equal(values, [1, 1, 1])


def test_what_fits_nowhere_stays_in_the_store(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(node_memory, "free_memory", lambda: float(2**30))
    usage = SimpleNamespace(free=2**29)
    monkeypatch.setattr(node_memory.shutil, "disk_usage", lambda folder: usage)
    monkeypatch.setattr(node_memory, "_is_memory", lambda folder: False)
    assert memory_for(ALONE, 4 * 2**30) is None
    assert "takes 4.0 GiB on each node" in caplog.text
    assert "read from the store at every step" in caplog.text
    assert type(memory_for(ALONE, 3 * 2**28)) is PrivateMemory, "it fits, if barely"


@pytest.mark.parametrize("version", [1, 2])
def test_a_cgroups_limit_counts(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {1: "memory", 2: ""}[version]
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }[version]
    inner = tmp_path / here / "job" / "step"
    inner.mkdir(parents=True)
    for folder, limit in ((inner, "max"), (inner.parent, "1000000")):
        (folder / names[0]).write_text(limit)
        (folder / names[1]).write_text("400000")
        (folder / "memory.stat").write_text(f"anon 1\n{names[2]} 100000\n")
    monkeypatch.setattr(node_memory, "CGROUPS", tmp_path)
    own = Path.read_text

    def read(path: Path) -> str:
        line = {1: "9:cpu,memory:/job/step\n", 2: "0::/job/step\n"}[version]
        return line if str(path) == "/proc/self/cgroup" else own(path)

    monkeypatch.setattr(Path, "read_text", read)
    assert node_memory.free_memory() == 700_000


def test_all_nodes_take_the_same_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Arrays are made by all ranks together, also where only another node needs its disk."""

    class Others(World):
        said: ClassVar[list[str]] = []

        def gather(self, value: Any) -> Any:
            return [value, *self.said]

    monkeypatch.setattr(node_memory, "free_memory", lambda: 100.0)
    monkeypatch.setattr(node_memory, "_is_memory", lambda folder: False)
    two = Others(0, 0, 2, torch.device("cpu"))
    for said, needed, kind, disk in (("disk", 10, NodeMemory, False), ("", 60, NodeMemory, True),
                                     ("", 10, PrivateMemory, False)):  # fmt: skip
        Others.said = [said]
        memory = memory_for(two, needed)
        assert type(memory) is kind
        assert (getattr(memory, "_disk", None) is not None) == disk
    Others.said = ["store"]
    assert memory_for(two, 10) is None, "another node has no place for it"


def test_file_systems_that_are_memory() -> None:
    assert node_memory._is_memory(Path("/dev/shm"))
    assert not node_memory._is_memory(Path(__file__).parent)
