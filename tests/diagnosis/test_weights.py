"""Figures of a checkpoint's tensors against torch's own; what is planted in them is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from giblet_hpc.diagnosis import weights
from giblet_hpc.training import checkpoint
from giblet_hpc.training.pieces import Source, whole
from giblet_hpc.training.world import World

NAMES = ["first.weight", "norm.weight"]
ALONE = World(0, 0, 1, torch.device("cpu"))


def tensors(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {
        "model/first.weight": torch.randn(40, 7),
        "model/norm.weight": torch.randn(40),
        "model/norm.running_var": torch.rand(40) + 0.1,
        "model/norm.num_batches_tracked": torch.tensor(9),
        "optimizer/0/exp_avg_sq": torch.rand(40, 7),
        "optimizer/1/exp_avg_sq": torch.rand(40),
        "optimizer/1/step": torch.tensor(3.0),
    }


def save(folder: Path, step: int, values: dict[str, torch.Tensor]) -> Source:
    writer = checkpoint.Writer(folder, ALONE, keep_last=9)
    writer.save(whole(values), {"step": step}, best=False)
    writer.wait()
    return checkpoint.load(folder / f"step-{step:08d}")[0]


def test_figures_are_torchs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "PART_BYTES", 300)
    values, before = tensors(0), tensors(1)
    source, other = save(tmp_path, 2, values), save(tmp_path, 1, before)
    rows = {row["name"]: row for row in weights.layers(source, NAMES, other)}
    assert set(rows) == {
        "first.weight",
        "norm.weight",
        "norm.running_var",
        "norm.num_batches_tracked",
    }
    first = values["model/first.weight"].double()
    found = rows["first.weight"]
    assert found["mean"] == pytest.approx(float(first.mean()))
    assert found["sd"] == pytest.approx(float(first.std(correction=0)))
    assert (found["low"], found["high"]) == (float(first.min()), float(first.max()))
    moved = (first - before["model/first.weight"].double()).norm() / first.norm()
    assert found["moved"] == pytest.approx(float(moved))
    second = values["optimizer/0/exp_avg_sq"].double()
    assert found["gradient"] == pytest.approx(float(second.mean().sqrt()))
    assert not rows["norm.running_var"]["parameter"]
    assert weights.findings(list(rows.values()))[0].level == "ok"


def test_what_stops_a_network_from_learning(tmp_path: Path) -> None:
    before, values = tensors(0), tensors(1)
    values["model/norm.weight"] = before["model/norm.weight"].clone()
    values["model/first.weight"][:30] = 0
    values["model/first.weight"][35, 2] = float("nan")
    values["model/norm.running_var"][4] = 0
    source, other = save(tmp_path, 2, values), save(tmp_path, 1, before)
    found = {one.check: one for one in weights.findings(list(weights.layers(source, NAMES, other)))
             if one.level == "fail"}  # fmt: skip
    assert found["norm.weight"].seen == "it has not moved since the other checkpoint"
    assert found["first.weight"].seen == "1 numbers are not finite"
    every = weights.findings(list(weights.layers(source, NAMES, other)))
    assert {one.seen for one in every if one.level == "warn"} == {
        "30 of 40 rows are 0", "inputs of a BatchNorm do not vary",
    }  # fmt: skip
    values = tensors(3)
    values["optimizer/1/exp_avg_sq"].zero_()
    (one,) = weights.findings(list(weights.layers(save(tmp_path, 3, values), NAMES)))
    assert (one.check, one.seen) == ("norm.weight", "it has never had a gradient")


LARGE = """
import resource, sys
from pathlib import Path
from giblet_hpc.diagnosis import weights
from giblet_hpc.training import checkpoint
source, _ = checkpoint.load(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[2]), -1))
print(sum(row["count"] for row in weights.layers(source, ["a"])))
"""


LIMIT = 1_600_000_000
"""The file, which is mapped, and 1.2 GB: of the whole tensor, two copies in double precision."""


def test_a_large_tensor_is_read_in_parts(tmp_path: Path) -> None:
    save(tmp_path, 1, {"model/a": torch.zeros(10_000, 10_000)})
    command = [sys.executable, "-c", LARGE, str(tmp_path / "step-00000001"), str(LIMIT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "100000000\n", done.stderr
