"""Profiles of some steps; what nvidia-smi says of a GPU, a recording standing in for the tool."""

from __future__ import annotations

import gzip
import json
import stat
import time
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from giblet_hpc import nvidia_smi
from giblet_hpc.config import io
from giblet_hpc.config.train import Train
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.training import instruments
from giblet_hpc.training.expected_size import expected_size
from giblet_hpc.training.network_size import network_of
from tests.training.test_loop import train

CONFIGS = Path(__file__).parents[2] / "configs"
UUID = "GPU-0b1c"
SMI = f"""#!/bin/sh
case "$*" in *"-i {UUID}"*) ;; *) exit 6 ;; esac
case "$*" in *utilization.gpu,memory.used,temperature.gpu,power.draw*) ;; *) exit 2 ;; esac
echo "87, 40321, 64, [N/A]"
"""


def test_a_profile_of_some_steps(tmp_path: Path) -> None:
    train(tmp_path, "train.profile=[2, 4]")
    folder = RunPaths(tmp_path).profile()
    assert sorted(file.name for file in folder.iterdir()) == ["steps-2-3.json.gz", "steps-2-3.txt"]
    trace = json.loads(gzip.decompress((folder / "steps-2-3.json.gz").read_bytes()))
    names = {event.get("name") for event in trace["traceEvents"]}
    assert "aten::conv2d" in names
    assert any("AdamW" in str(name) for name in names)
    assert "Self CPU" in (folder / "steps-2-3.txt").read_text()


def test_steps_that_are_none() -> None:
    with pytest.raises(ValidationError, match="has to be after the first"):
        Train(profile=(4, 4))


def test_what_a_gpu_says_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(SMI)
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    expected = {"percent_busy": 87.0, "mib_used": 40321.0, "celsius": 64.0}
    assert instruments.gpu_figures(UUID) == expected, "a sensor that is not there is left out"
    assert instruments.gpu_figures("GPU-other") == {}
    assert nvidia_smi.query(["name"], gpu=UUID, seconds=5) == [], "an answer to something else"
    sampler = instruments.GpuSampler(UUID)
    end = time.monotonic() + 10
    while not sampler.last and time.monotonic() < end:
        time.sleep(0.02)
    sampler.close()
    assert sampler.last == expected


def test_without_the_tool_there_are_no_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert instruments.gpu_figures(UUID) == {}


def test_the_share_of_a_gpus_arithmetic() -> None:
    found = instruments.utilisation(15.5e12, "NVIDIA RTX A6000")
    assert found["model_flops_utilisation"] == pytest.approx(0.1)
    assert instruments.utilisation(1e12, "Voodoo 2") == {}


def test_operations_of_the_dense_network_are_two_a_weight() -> None:
    config = io.load(CONFIGS / "sherlock_dense.yaml", [])
    network = network_of(config, expected_size(config, voxels=83_138, fps=25.0))
    assert network.operations == pytest.approx(2 * network.weights, rel=1e-3)


def test_operations_of_a_forward_pass_are_those_that_torch_counts_on_numbers() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    layer = torch.nn.Conv2d(3, 8, 3)
    with FlopCounterMode(display=False) as counter:
        layer(torch.ones(1, 3, 10, 10))
    assert counter.get_total_flops() == 2 * 8 * 8 * 8 * 3 * 9
