"""The report is one page that needs nothing else, and runs nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from giblet_hpc.config import io
from giblet_hpc.errors import ConfigError
from giblet_hpc.evaluation import citations, figures, methods, page
from giblet_hpc.files import write_json
from giblet_hpc.findings import Finding
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.scans.tables import Columns
from tests.test_health import rows_of

ENDS = {"model_r_interval": [0.4, 0.6], "ridge_r_interval": [0.1, 0.3], "difference": 0.3,
        "difference_interval": [0.2, 0.4]}  # fmt: skip
FOLD: dict[str, Any] = {
    "title": "<script>alert(1)</script>", "fold": "", "verdict": "equal & <b>more</b>",
    "test_trs": 4, "step": 9,
    "rows": [{"region": "<b>x</b>", "voxels": 7, "model_r": 0.5, "ridge_r": 0.2, **ENDS,
              "verdict": "better", "model_p": 0.001, "time_r": -0.08, "ridge_r2": 0.04,
              "unique-text": 0.02, "unique-text_interval": [0.01, 0.03], "product-text": 0.03,
              "product-video": 0.01}],
    "gate": {"<b>x</b>": 0.25},
    "subjects": [{"subject": "<i>s", "model_r": 0.5, "ridge_r": 0.2, **ENDS}],
    "reconstruction": [
        {"figure": "video: error (1 = training mean)", "model": 0.7, "scans": 0.85, "mean": 1.02,
         "previous": 0.31},
        {"figure": "audio: error (1 = training mean or code frequencies)", "model": 0.999,
         "scans": None, "mean": 1.0, "previous": None},
    ],
    "decoded": {"top1": 0.25, "chance1": 0.05, "top5": 0.5, "chance5": 0.25, "segments": 20.0},
    "matching": {"ridge": {"top1": 0.4, "chance1": 0.05, "top5": 0.8, "chance5": 0.25,
                           "segments": 20.0}},
}  # fmt: skip

R = {"model_r": np.zeros(5), "ridge_r": np.arange(5)}


@pytest.fixture
def evaluated(tmp_path: Path, demo_config: str) -> RunPaths:
    """A run's folder as evaluation leaves it."""
    paths = RunPaths(tmp_path / "a & b")
    paths.create(io.load(Path(demo_config)))
    write_json(paths.scores, [FOLD])
    rows = rows_of(30)
    paths.metrics().write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    folder = paths.figures()
    figures.save_figure(folder, "training", figures.training_figure(paths.metrics()))
    figures.save_figure(folder, "histogram", figures.histogram_figure(R))
    figures.save_figure(folder, "subjects", figures.subjects_figure(FOLD["subjects"]))
    figures.save_figure(folder, "sample-run1-TR-0007", figures.histogram_figure(R))
    mask = np.ones((2, 3, 2), bool)
    arrays = {"model_r": np.full((2, 12), 0.5), "ridge_r": np.eye(2, 12), "ceiling": np.ones(12)}
    figures.save_maps(folder, arrays, mask, Columns(mask.size))
    methods.save(paths, "preprocess", ["Scans & <b>words</b> [@defossez2022]."])
    methods.save(paths, "evaluate", ["Scored [@kunsch1989] [@defossez2022]."])
    return paths


def test_a_table_leaves_out_what_there_is_none_of() -> None:
    rows = [
        {"region": "all voxels", "voxels": 7, "model_r": 0.51, "ridge_r": None},
        {"region": "early", "voxels": 3, "model_r": 0.2, "ridge_r": 0.1},
    ]
    headings, cells = page.table_cells(rows, "region")
    assert headings == ["region", "voxels", "network r", "ridge r"]
    assert cells == [["all voxels", "7", "0.510", ""], ["early", "3", "0.200", "0.100"]]
    _, cells = page.table_cells(FOLD["subjects"], "subject")
    assert cells[0][1:3] == ["0.500 [0.400, 0.600]", "0.200 [0.100, 0.300]"]


def test_everything_is_in_the_page_and_nothing_becomes_markup(evaluated: RunPaths) -> None:
    text = page.write_report(evaluated, evaluated.load_config()).read_text()
    assert "<script>alert" not in text
    assert "<b>x</b>" not in text and "<i>s" not in text and "<b>more" not in text
    assert "a &amp; b" in text
    assert "&lt;b&gt;x&lt;/b&gt; 0.25" in text, "the gate"
    assert "+0.020 [+0.010, +0.030]" in text, "what text alone explains"
    assert "<td>-0.080</td>" in text, "a control"
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text), "nothing is fetched"
    assert text.count("<img ") == 4 + 4
    assert all(len(alt) > 30 for alt in re.findall(r'alt="([^"]*)"', text))
    assert "A test TR (run1 TR 0007)" in text
    anchors, targets = (set(re.findall(p, text)) for p in (r'href="#([^"]+)"', r' id="([^"]+)"'))
    assert anchors == targets
    assert "+0.300 [+0.200, +0.400]" in text
    assert "Training: <b>healthy</b>" in text
    assert "audio: the reconstruction is no better than the training mean" in text
    assert "video: the reconstruction" not in text
    assert "<td>0.700</td><td>0.850</td><td>1.020</td><td>0.310</td>" in text
    assert "<td>scans, by the prediction of ridge</td><td>40.0%</td><td>5.0%</td>" in text
    assert "<td>stimulus, by what is decoded from scans</td><td>25.0%</td>" in text
    assert "Scans &amp; &lt;b&gt;words&lt;/b&gt; (Défossez et al. 2022)." in text
    assert "4 test TRs at step 9" in text and "giblet-hpc " in text
    assert 'name="viewport"' in text and "prefers-color-scheme: dark" in text


def test_citations_lie_beside_the_page(evaluated: RunPaths) -> None:
    page.write_report(evaluated, evaluated.load_config())
    said = (evaluated.root / "CITATION.md").read_text()
    assert citations.cited(said) == ["defossez2022", "kunsch1989"]
    works = (evaluated.root / "CITATION.bib").read_text()
    assert re.findall(r"@\w+\{(\w+),", works) == ["defossez2022", "kunsch1989"]


def test_a_run_without_scores(evaluated: RunPaths) -> None:
    evaluated.scores.unlink()
    with pytest.raises(ConfigError, match="has no scores yet"):
        page.write_report(evaluated, evaluated.load_config())


def test_what_speaks_against_a_training_comes_first(evaluated: RunPaths) -> None:
    rows = [{**row, "loss/fmri": 1e9} if row["kind"] == "train" else row for row in rows_of(30)]
    evaluated.metrics().write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = page.health_of(evaluated.metrics(), evaluated.load_config())
    assert any(one == Finding(one.check, "fail", one.seen, one.fix) for one in found)
    text = page.write_report(evaluated, evaluated.load_config()).read_text()
    assert text.index("this could not succeed") < text.index("<h2")
    assert "<details open>" in text


def test_every_work_has_what_a_reader_needs() -> None:
    for key, work in citations.WORKS.items():
        assert work.doi.startswith("10."), key
        assert work.year in key and work.year in work.short
    assert citations.in_words("a [@paszke2019] b") == "a (Paszke et al. 2019) b"


def test_each_stage_says_its_part(paths_of_run: RunPaths) -> None:
    config = paths_of_run.load_config()

    class Said:
        def remarks(self) -> list[str]:
            return ["Sound: none."]

    before = methods.of_preprocess(
        config,
        {"x": Said()},
        subjects=4,
        lengths={"run1": 30},
        voxels=8000,
        unit="voxels",
        rule="vote",
    )
    methods.save(paths_of_run, "preprocess", before)
    methods.save(paths_of_run, "train", methods.of_training(config, parameters=12345))
    methods.save(paths_of_run, "evaluate", methods.of_evaluation(config, delays=[1, 8]))
    said = " ".join(methods.read(paths_of_run))
    for part in ("4 subjects (TR 1.5 s; runs run1 (30 TRs))", "8,000 voxels", "Sound: none.",
                 "12,345 parameters", "lags of 1 to 8 TRs", "1,000 draws of blocks of 30 s"):  # fmt: skip
        assert part in said
    assert set(citations.cited(said)) <= set(citations.WORKS)


@pytest.fixture
def paths_of_run(tmp_path: Path, demo_config: str) -> RunPaths:
    paths = RunPaths(tmp_path / "run")
    paths.create(io.load(Path(demo_config)))
    return paths


@pytest.mark.parametrize("lines", [True, False])
def test_curves_of_a_run_with_and_without_figures(tmp_path: Path, lines: bool) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows_of(4) if lines))
    assert len(figures.training_figure(file).axes) == 3
