"""The report is one page that needs nothing else, and runs nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from giblet_hpc.config import io
from giblet_hpc.evaluation import report
from giblet_hpc.findings import Finding


def test_a_table_leaves_out_what_there_is_none_of() -> None:
    rows = [
        {"region": "all", "voxels": 7, "model_r": 0.51, "ridge_r": None},
        {"region": "early", "voxels": 3, "model_r": 0.2, "ridge_r": 0.1},
    ]
    headings, cells = report.table_cells(rows)
    assert headings == ["region", "voxels", "model r", "ridge r"]
    assert cells == [["all", "7", "0.510", ""], ["early", "3", "0.200", "0.100"]]


def test_curves_of_a_run_with_and_without_figures(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    rows = [
        {"kind": "train", "step": 1, "loss/fmri": 0.5, "gradient_share/fmri": 1.0},
        {"kind": "validation", "step": 1, "fmri_error": 0.9, "r": 0.1},
    ]
    for lines in (rows, []):
        file.write_text("".join(json.dumps(row) + "\n" for row in lines))
        assert report.training_figure(file).startswith("data:image/png;base64,")


def test_names_do_not_become_markup(tmp_path: Path, demo_config: str) -> None:
    picture = report.histogram_figure(np.zeros(5), np.ones(5))
    fold = {
        "title": "<script>alert(1)</script>", "verdict": "equal", "test_trs": 4, "step": 9,
        "rows": [{"region": "<b>x</b>", "voxels": 7, "model_r": 0.5}], "reconstruction": {},
        "training": picture, "histogram": picture, "maps": [], "samples": [], "fold": "",
        "profiles": ["profile/steps-3-5.txt"],
        "health": [Finding("r <i>", "fail", "0.001", "look & see")],
    }  # fmt: skip
    file = tmp_path / "report.html"
    config = io.load(Path(demo_config))
    report.write_report(file, name="a & b", config=config, folds=[fold], notes=["<i>note</i>"])
    page = file.read_text()
    assert "<script>alert" not in page and "<b>x</b>" not in page and "<i>note" not in page
    assert "a &amp; b" in page
    assert "<b>fail</b> r &lt;i&gt;: 0.001 (look &amp; see)" in page
    assert "4 test TRs at step 9" in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page), "nothing is fetched"
