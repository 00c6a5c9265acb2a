"""Voxel values in space."""

from __future__ import annotations

import base64
from pathlib import Path

import nibabel
import numpy as np

from giblet_hpc.evaluation import maps

MASK = np.zeros((3, 4, 5), dtype=bool)
MASK[1, 1:3, 2:4] = True
AFFINE = np.diag([3.0, 3.0, 4.0, 1.0])


def test_a_map_lies_where_its_voxels_are(tmp_path: Path) -> None:
    values = np.arange(1.0, 5.0)
    maps.save_map(tmp_path / "r.nii.gz", values, MASK, AFFINE)
    image = nibabel.load(tmp_path / "r.nii.gz")
    data = image.get_fdata()
    np.testing.assert_array_equal(data[MASK], values)
    assert not data[~MASK].any()
    np.testing.assert_array_equal(image.affine, AFFINE)
    assert [path.name for path in tmp_path.iterdir()] == ["r.nii.gz"], "nothing half written"


def test_volumes_keep_their_order_and_their_tr(tmp_path: Path) -> None:
    values = np.arange(12.0).reshape(3, 4)
    maps.save_map(tmp_path / "scan.nii", values, MASK, AFFINE, tr=1.5)
    image = nibabel.load(tmp_path / "scan.nii")
    np.testing.assert_array_equal(image.get_fdata()[MASK].T, values)
    assert image.header.get_zooms()[3] == 1.5


def test_a_picture_is_a_png_of_slices_that_hold_voxels() -> None:
    values = np.array([-2.0, 0.0, 1.0, 0.5])
    figure = maps.slices_figure(values, MASK, AFFINE, title="r", label="r")
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == ["z = 8 mm", "z = 12 mm"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["L", "R"]
    turned = maps.slices_figure(
        values, MASK, np.diag([-3.0, 3.0, 4.0, 1.0]), title="r", label="r", limit=0.5
    )
    assert [text.get_text() for text in turned.axes[0].texts] == ["R", "L"]
    assert turned.axes[0].get_images()[0].norm.vmax == 0.5
    shown = figure.axes[0].get_images()[0]
    assert (shown.norm.vmin, shown.norm.vmax) == (-2.0, 2.0), "as far to both sides"
    uri = maps.as_data_uri(figure)
    assert base64.b64decode(uri.removeprefix("data:image/png;base64,"))[:4] == b"\x89PNG"
