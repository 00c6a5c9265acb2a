"""Figures of what knows nothing of a TR, and what the report says of reconstructions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from giblet_hpc.evaluation import reconstruction
from giblet_hpc.files import read_json, write_json
from giblet_hpc.splits import Block
from giblet_hpc.training.world import World
from tests.diagnosis.test_gradients import made
from tests.training.test_loop import study

ALONE = World(0, 0, 1, torch.device("cpu"))
BLOCKS = [Block("run1", 10, 31), Block("run1", 40, 42)]


def test_controls_are_those_of_all_trs_but_each_blocks_first(tmp_path: Path) -> None:
    predictor, _ = made()
    reconstruction.write_controls(predictor, BLOCKS, tmp_path, ALONE)
    found = read_json(tmp_path / reconstruction.CONTROLS)
    video = predictor.modalities["video"]
    frames = study().runs["run1"].stimulus["video"][:].astype(np.float64) / 255
    trs = np.r_[11:31, 41:42]
    variance = float(video.estimates["variance"])
    mean = np.mean((frames[trs] - video.estimates["mean"]) ** 2) / variance
    previous = np.mean((frames[trs] - frames[trs - 1]) ** 2) / variance
    assert found["mean"]["video"]["error"] == pytest.approx(mean, rel=1e-4)
    assert found["previous"]["video"]["error"] == pytest.approx(previous, rel=1e-4)
    before = (tmp_path / reconstruction.CONTROLS).stat().st_mtime_ns
    reconstruction.write_controls(predictor, BLOCKS, tmp_path, ALONE)
    assert (tmp_path / reconstruction.CONTROLS).stat().st_mtime_ns == before


def test_rows_have_what_is_known_of_each_figure(tmp_path: Path) -> None:
    labels = {"video": {"error": "error", "ssim": "alike"}, "audio": {"top1": "hits"}}
    write_json(tmp_path / "reconstruction.json", {"video": {"error": 0.5}, "audio": {"top1": 0.1}})
    alone = reconstruction.of_fold(tmp_path, labels)
    assert alone == {
        "reconstruction": [{"figure": "video: error", "model": 0.5},
                           {"figure": "audio: hits", "model": 0.1}],
        "decoded": {},
    }  # fmt: skip
    write_json(tmp_path / reconstruction.CONTROLS, {"mean": {"video": {"error": 1.0}}})
    found = {"figures": {"video": {"error": 0.8}}, "matching": {"top1": 0.3}, "penalty": 1}
    write_json(tmp_path / reconstruction.DECODED, found)
    both = reconstruction.of_fold(tmp_path, labels)
    assert both["decoded"] == {"top1": 0.3}
    assert both["reconstruction"][0] == {
        "figure": "video: error", "model": 0.5, "scans": 0.8, "mean": 1.0,
    }  # fmt: skip
    assert both["reconstruction"][1]["scans"] is None
