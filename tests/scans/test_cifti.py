"""CIFTI: grayordinates read and written."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel import cifti2

from giblet_hpc.errors import DataError
from giblet_hpc.scans.cifti import CiftiFile, Grayordinates

RANDOM = np.random.default_rng(0)


def places(left: int = 9) -> cifti2.BrainModelAxis:
    """Part of a cortex of 12 vertices a hemisphere, and some voxels of the thalamus."""
    cortex = cifti2.BrainModelAxis.from_surface(np.arange(left), 12, name="cortex_left")
    cortex += cifti2.BrainModelAxis.from_surface(np.arange(2, 12), 12, name="cortex_right")
    voxels = np.zeros((4, 4, 4), bool)
    voxels[1, 1:3, 2] = True
    return cortex + cifti2.BrainModelAxis.from_mask(voxels, "thalamus_left", np.eye(4))


def save(path: Path, rows: np.ndarray, first: object, axis: object = None) -> Path:
    image = cifti2.Cifti2Image(rows.astype(np.float32), (first, axis or places()))
    nibabel.save(image, path)
    return path


def test_rows_are_grayordinates(tmp_path: Path) -> None:
    rows = RANDOM.standard_normal((6, 21)).astype(np.float32)
    path = save(tmp_path / "s.dtseries.nii", rows, cifti2.SeriesAxis(0, 1.5, 6))
    found = CiftiFile([path])
    assert (found.trs, found.tr, found.space.shape) == (6, 1.5, (21,))
    np.testing.assert_array_equal(found.rows(slice(2, 5)), rows[2:5])
    np.testing.assert_array_equal(found.sample(slice(None), 3), rows[[0, 2, 5]])


def test_a_space_survives_the_store() -> None:
    space = Grayordinates(places())
    again = Grayordinates.restored(space.shape, space.attributes())
    assert again.difference(space) == ""
    assert again.places == space.places


def test_values_go_back_to_their_grayordinates(tmp_path: Path) -> None:
    space, mask = Grayordinates(places()), RANDOM.random(21) > 0.4
    values = RANDOM.standard_normal((3, mask.sum())).astype(np.float32)
    (path,) = space.write(tmp_path / "r", values, mask, tr=2.0)
    again = CiftiFile([path])
    assert (path.name, again.tr) == ("r.dtseries.nii", 2.0)
    np.testing.assert_array_equal(again.rows(slice(None))[:, mask], values)
    (path,) = space.write(tmp_path / "r", values[0], mask)
    image = nibabel.load(path)
    assert path.name == "r.dscalar.nii"
    assert image.header.get_axis(1) == space.places
    assert not image.get_fdata()[0, ~mask].any()


def test_labels_bring_their_names(tmp_path: Path) -> None:
    axis = cifti2.LabelAxis(["atlas"], {0: ("???", (0, 0, 0, 0)), 1: ("V1", (1, 0, 0, 1))})
    labels = RANDOM.integers(0, 2, (1, 21))
    found = CiftiFile([save(tmp_path / "a.dlabel.nii", labels, axis)]).labels()
    np.testing.assert_array_equal(found.values, labels[0])
    assert found.names == {"1": "V1"}


def test_what_is_no_such_file(tmp_path: Path) -> None:
    space = Grayordinates(places())
    with pytest.raises(DataError, match="has 20 grayordinates; the study's have 21"):
        space.check("x", Grayordinates(places(8)))
    parcels = cifti2.ParcelsAxis.from_brain_models([("one", places())])
    path = save(tmp_path / "p.dtseries.nii", np.ones((5, 1)), cifti2.SeriesAxis(0, 1, 5), parcels)
    with pytest.raises(DataError, match="holds Parcelss|holds Parcels"):
        CiftiFile([path])
    path.write_bytes(b"no scan")
    with pytest.raises(DataError, match="cannot be read as CIFTI"):
        CiftiFile([path])
    volume = nibabel.Nifti1Image(np.ones((2, 2, 2, 4), np.float32), np.eye(4))
    nibabel.save(volume, tmp_path / "v.dtseries.nii")
    with pytest.raises(DataError, match="cannot be read as CIFTI"):
        CiftiFile([tmp_path / "v.dtseries.nii"])


def test_a_picture_has_cortex_and_what_lies_below() -> None:
    figure = Grayordinates(places()).draw(np.ones(21), np.ones(21, bool), limit=1, label="r")
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["cortex left", "cortex right", "below the cortex"]
