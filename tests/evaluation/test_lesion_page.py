"""The page of lesions: what it names is there, and nothing becomes markup."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from giblet_hpc.evaluation import lesion_page
from giblet_hpc.evaluation.lesions import blocks_of
from tests.diagnosis.test_gradients import made
from tests.evaluation.test_lesions import WINDOWS


def test_each_file_is_under_its_name_and_words_are_the_nearest(tmp_path: Path) -> None:
    predictor, _ = made()
    predictor.model.eval()
    trs = sum(block.trs for block in blocks_of(WINDOWS, predictor.config.train.window_trs))
    intact = np.zeros((trs, predictor.config.model.bottleneck), np.float32)
    rows = [{"lesion": "<i>left", "size": 3, "modality": "video", "moved": 0.5,
             "moved_random": 0.25, "moved_p": 0.125,
             "figures": {"error": {"before": 1, "after": 2, "after_random": None}}}]  # fmt: skip
    record: dict[str, Any] = {"run": "a & b", "step": 3, "trs": trs, "of": "voxels", "random": 7,
                              "lesions": rows}  # fmt: skip
    lesion_page.write(
        tmp_path / "x", record, WINDOWS[:1], intact, [("without-1", "<i>left", intact + 1)],
        predictor=predictor, captions={},
    )  # fmt: skip
    found = json.loads((tmp_path / "x" / "lesions.json").read_text())
    (sample,) = found["samples"]
    of = {one["of"] for one in sample["files"]}
    assert of == {"shown", "decoded", "<i>left"}
    text = (tmp_path / "x" / "index.html").read_text()
    for one in sample["files"]:
        assert (tmp_path / "x" / one["file"]).is_file()
        if one["file"].endswith(("mp4", "wav")):
            assert one["file"] in text
    assert "<i>" not in text
    assert "without &lt;i&gt;left" in text
    assert "a &amp; b: lesions" in text
    assert "1.000 to 2.000" in text
    assert "<td>0.125</td>" in text


def test_the_words_are_those_of_the_tr_with_the_most_similar_row() -> None:
    rows = np.random.default_rng(0).standard_normal((30, 6)) + 5
    nearest = lesion_page.Nearest(rows, [f"TR {number}" for number in range(30)])
    assert nearest(rows[11:12]) == "TR 11"
    assert nearest(2 * rows[11:12] - rows.mean(axis=0)) == "TR 11", "size does not matter"
    several = rows[3:6] - rows.mean(axis=0)
    alike = [one @ several.mean(axis=0) / np.linalg.norm(one) for one in rows - rows.mean(axis=0)]
    assert nearest(rows[3:6]) == f"TR {int(np.argmax(alike))}"
