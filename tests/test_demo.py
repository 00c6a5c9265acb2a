"""The README's promise: the demo finds what was planted, and nothing where nothing was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_demo_recovers_the_planted_answer(tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    done = subprocess.run(
        ["bash", "configs/demo.sh"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "report: " in done.stdout
    scores = tmp_path / "demo" / "runs" / "demo" / "evaluation" / "scores.json"
    (fold,) = json.loads(scores.read_text())
    rows = {row["region"]: row for row in fold["rows"]}
    for region in ("video", "audio", "text", "mixed"):
        assert rows[region]["share_of_best"] >= 0.9, (region, rows[region])
    assert abs(rows["none"]["model_r"]) < 0.05
