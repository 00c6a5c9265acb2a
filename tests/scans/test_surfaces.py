"""Surfaces: GIFTI pairs read and written."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.gifti import GiftiDataArray, GiftiImage, GiftiLabel, GiftiLabelTable, GiftiMetaData

from giblet_hpc.errors import DataError
from giblet_hpc.scans import surfaces
from giblet_hpc.scans.surfaces import Surface, SurfaceFile

RANDOM = np.random.default_rng(0)


def save(path: Path, rows: np.ndarray, *, step: str = "", labels: bool = False) -> Path:
    arrays = [
        GiftiDataArray(
            row.astype(np.int32 if labels else np.float32),
            intent="NIFTI_INTENT_LABEL" if labels else "NIFTI_INTENT_TIME_SERIES",
            datatype="NIFTI_TYPE_INT32" if labels else "NIFTI_TYPE_FLOAT32",
        )
        for row in rows
    ]
    table = None
    if labels:
        table = GiftiLabelTable()
        for key, name in ((0, "???"), (1, "V1"), (2, "A1")):
            label = GiftiLabel(key)
            label.label = name
            table.labels.append(label)
    meta = GiftiMetaData({"TimeStep": step} if step else {})
    nibabel.save(GiftiImage(darrays=arrays, meta=meta, labeltable=table), path)
    return path


def pair(folder: Path, rows: np.ndarray, left: int, **options: object) -> list[Path]:
    return [
        save(folder / f"s_hemi-{side}_space-fsaverage6_bold.func.gii", part, **options)  # type: ignore[arg-type]
        for side, part in (("L", rows[:, :left]), ("R", rows[:, left:]))
    ]


def test_both_hemispheres_beside_each_other(tmp_path: Path) -> None:
    rows = RANDOM.standard_normal((7, 30)).astype(np.float32)
    found = SurfaceFile(pair(tmp_path, rows, 14, step="2000.000"))
    assert (found.trs, found.tr, found.space) == (7, 2.0, Surface((14, 16), "fsaverage6"))
    np.testing.assert_array_equal(found.rows(slice(1, 4)), rows[1:4])
    assert len(found.sample(slice(None), 3)) == 3


def test_one_array_of_all_times(tmp_path: Path) -> None:
    rows = RANDOM.standard_normal((5, 12)).astype(np.float32)
    paths = []
    for side, part in (("L", rows[:, :6]), ("R", rows[:, 6:])):
        path = tmp_path / f"{side}.gii"
        whole = GiftiDataArray(np.ascontiguousarray(part.T), datatype="NIFTI_TYPE_FLOAT32")
        nibabel.save(GiftiImage(darrays=[whole]), path)
        paths.append(path)
    found = SurfaceFile(paths)
    assert (found.trs, found.space.vertices, found.tr) == (5, (6, 6), None)
    np.testing.assert_array_equal(found.rows(slice(None)), rows)


def test_labels_bring_their_names(tmp_path: Path) -> None:
    labels = RANDOM.integers(0, 3, (1, 20))
    found = SurfaceFile(pair(tmp_path, labels, 10, labels=True)).labels()
    np.testing.assert_array_equal(found.values, labels[0])
    assert found.names == {"1": "V1", "2": "A1"}


def test_values_go_back_to_their_vertices(tmp_path: Path) -> None:
    space, mask = Surface((14, 16), "fsaverage6"), RANDOM.random(30) > 0.4
    values = RANDOM.standard_normal((3, mask.sum())).astype(np.float32)
    paths = space.write(tmp_path / "r", values, mask, tr=1.5)
    assert [path.name for path in paths] == ["r_hemi-L.func.gii", "r_hemi-R.func.gii"]
    again = SurfaceFile(paths)
    np.testing.assert_array_equal(again.rows(slice(None))[:, mask], values)
    assert not again.rows(slice(None))[:, ~mask].any()
    assert again.tr == 1.5
    assert nibabel.load(paths[0]).meta["AnatomicalStructurePrimary"] == "CortexLeft"
    assert Surface.restored(space.shape, space.attributes()) == space


def test_spaces_that_differ() -> None:
    with pytest.raises(DataError, match="has .* vertices"):
        Surface((5, 5)).check("x.gii", Surface((5, 6)))
    with pytest.raises(DataError, match="lies on fsLR; the study's scans on fsaverage5"):
        Surface((5, 5), "fsaverage5").check("x.gii", Surface((5, 5), "fsLR"))
    Surface((5, 5), "fsaverage5").check("x.gii", Surface((5, 5)))


def test_files_that_are_no_scans(tmp_path: Path) -> None:
    rows = RANDOM.standard_normal((4, 12)).astype(np.float32)
    left, right = pair(tmp_path, rows, 6)
    with pytest.raises(DataError, match="one hemisphere of a surface"):
        SurfaceFile([left])
    save(right, rows[:3, 6:])
    with pytest.raises(DataError, match="has 4 TRs and .* has 3"):
        SurfaceFile([left, right])
    right.write_text("<html>not found</html>")
    with pytest.raises(DataError, match="is no GIFTI file"):
        SurfaceFile([left, right])
    points = GiftiDataArray(np.ones((6, 3), np.float32), intent="NIFTI_INTENT_POINTSET")
    nibabel.save(GiftiImage(darrays=[points]), right)
    with pytest.raises(DataError, match="is a mesh"):
        SurfaceFile([left, right])
    whole = save(right, rows[:, 6:]).read_bytes()
    right.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read as GIFTI"):
        SurfaceFile([left, right]).rows(slice(None))


def test_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    space, mask = Surface((10, 12)), np.ones(22, bool)
    figure = space.draw(np.linspace(-1, 1, 22), mask, limit=1, label="r")
    assert [axis.get_title() for axis in figure.axes] == ["hemisphere L", "hemisphere R"]
    drawn = []
    monkeypatch.setattr(surfaces, "_fsaverage_figure", lambda *parts, **_: drawn.append(parts))
    mask = np.ones(2 * 40_962, bool)
    mask[0] = False
    Surface((40_962, 40_962)).draw(np.ones(mask.sum()), mask, limit=1, label="r")
    left, right = drawn[0]
    assert (len(left), len(right), np.isnan(left[0]), left[1]) == (10_242, 10_242, True, 1)


def test_a_picture_of_fsaverage() -> None:
    values = np.sin(np.arange(2 * 10_242))
    mask = np.ones(len(values), bool)
    figure = Surface((10_242, 10_242)).draw(values, mask, limit=1, label="r")
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == ["left, lateral", "left, medial", "right, medial", "right, lateral"]
    figure.canvas.draw()
