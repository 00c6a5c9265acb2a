"""What a look writes: figures against numpy, files that can be read, a page that names them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from giblet_hpc.evaluation import look
from giblet_hpc.splits import Block
from giblet_hpc.training.windows import Window
from tests.diagnosis.test_gradients import made
from tests.training.test_loop import FOLD, study

SAID = {"run": "a <run>", "step": 7, "fold": "", "part": "validation"}


def test_figures_are_those_of_the_predictions_that_are_written(tmp_path: Path) -> None:
    predictor, _ = made()
    predictor.model.eval()
    done: list[int] = []
    windows = [Window(FOLD.validation[0], 70), Window(FOLD.validation[0], 86)]
    found = look.look(predictor, study(), windows, tmp_path / "x", said=SAID, note=done.append)
    assert done == [1, 2]
    sample = found["samples"][1]
    assert (sample["run"], sample["tr"], sample["trs"]) == ("run1", 86, 8)
    predicted = np.load(tmp_path / "x" / "sample-02-scans.npy")[0]
    scans = study().runs["run1"].bold[0, 86:94]
    each = [np.corrcoef(predicted[:, v], scans[:, v])[0, 1] for v in range(5)]
    assert sample["r"]["x"] == pytest.approx(np.mean(each), abs=1e-5)
    assert sample["reconstruction"]["video"]["error"] > 0
    names = {file.name for file in (tmp_path / "x").iterdir()}
    assert set(sample["files"]) < names
    assert {"figures.json", "index.html", "sample-01-video-shown.mp4"} < names
    assert json.loads((tmp_path / "x" / "figures.json").read_text()) == found
    text = (tmp_path / "x" / "index.html").read_text()
    assert all(name in text for name in names if name.endswith(("png", "mp4", "wav")))
    assert "a &lt;run&gt;: step 7" in text


def test_windows_are_spread_and_whole() -> None:
    blocks = (Block("run1", 0, 100), Block("run2", 0, 21))
    found = look.choose_windows(blocks, 8, 3)
    assert [w.block.run for w in found] == ["run1", "run1", "run2"]
    assert all(w.block.stop - w.start >= 8 for w in found)
    assert len(look.choose_windows(blocks, 8, 99)) == 12 + 2
    assert len(look.choose_windows((Block("run1", 0, 5),), 8, 4)) == 1
