"""Scores of runs as tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from giblet_hpc.config import io
from giblet_hpc.errors import ConfigError
from giblet_hpc.files import write_json
from giblet_hpc.jobs.inspect import scores
from giblet_hpc.runs.paths import RunPaths


def row(region: str, **more: Any) -> dict[str, Any]:
    figures = {"model_r": 0.25, "ridge_r": 0.125, "ceiling": None, "normalised_r": None}
    return {"region": region, "voxels": 7, **figures, **more}


def evaluated(paths: RunPaths, *values: float) -> None:
    folds = [
        {"title": f"fold {n}", "test_trs": 40, "verdict": "better than ridge",
         "rows": [row("all voxels", model_r=value), row("early")]}
        for n, value in enumerate(values)
    ]  # fmt: skip
    write_json(paths.scores, folds)


def test_a_run_without_scores_says_what_to_do(paths: RunPaths) -> None:
    with pytest.raises(ConfigError, match="has no scores yet") as caught:
        scores.read(paths)
    assert "resubmit" in caught.value.hint


def test_a_table_has_a_part_for_each_fold(paths: RunPaths) -> None:
    evaluated(paths, 0.5, 0.3)
    lines = scores.table(paths).splitlines()
    assert lines[0] == "fold 0 (40 test TRs)"
    assert lines[1].split() == [
        "region",
        "voxels",
        "model",
        "r",
        "ridge",
        "r",
        "ceiling",
        "r/ceiling",
    ]
    assert lines[2].split() == ["all", "voxels", "7", "0.500", "0.125", "-", "-"]
    assert lines[4] == "  better than ridge"
    assert lines[5] == "fold 1 (40 test TRs)"


def test_runs_are_compared_by_what_differs(paths: RunPaths, demo_config: str) -> None:
    other = RunPaths(paths.root.parent / "other")
    other.create(io.load(Path(demo_config), ["train.lr=0.5"]))
    evaluated(paths, 0.5, 0.3)
    rows = scores.compare([paths, other])
    assert [r["train.lr"] for r in rows] == [paths.load_config().train.lr, 0.5]
    assert rows[0]["model_r"] == pytest.approx(0.4), "the mean over folds"
    assert rows[1]["model_r"] is None
    assert not any(key.startswith("study") for key in rows[0])
    lines = [line.split() for line in scores.compare_table(rows).splitlines()]
    assert lines[0] == ["run", "a", "run", "other"]
    assert lines[1] == ["train.lr", "0.002", "0.5"]
    assert lines[-1][0] == "ceiling" and lines[-1][-1] == "-"


def test_settings_of_several_values_are_shown_as_a_config_writes_them() -> None:
    rows = [{"run": "a", "features.video": {"height": 90}}, {"run": "b", "features.video": None}]
    assert scores.compare_table(rows).splitlines()[1].split("  ") == [
        "features.video", "{height: 90}", "-",
    ]  # fmt: skip
