"""What files of scans say of themselves, compared with nibabel."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel import cifti2

from giblet_hpc.discovery.headers import NOTHING, read_header
from tests.scans.test_cifti import places
from tests.scans.test_surfaces import pair


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("name", ["s.nii", "s.nii.gz"])
@pytest.mark.parametrize(
    ("stated", "unit", "tr"),
    [(1.5, "sec", 1.5), (2000, "msec", 2.0), (0, "sec", None), (1, "sec", None), (1000, "msec", 1)],
)
def test_volumes(
    tmp_path: Path, kind: type, name: str, stated: float, unit: str, tr: float | None
) -> None:
    image = kind(np.zeros((3, 4, 5, 6), np.int16), np.eye(4))
    image.header.set_zooms((1, 1, 1, stated))
    image.header.set_xyzt_units("mm", unit)
    nibabel.save(image, tmp_path / name)
    assert read_header(tmp_path / name) == (tr, 6, (3, 4, 5))


def test_big_endian_and_single_volumes(tmp_path: Path) -> None:
    data = np.zeros((3, 4, 5), np.int16)
    header = nibabel.Nifti1Header(endianness=">")
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4), header), tmp_path / "s.nii")
    assert read_header(tmp_path / "s.nii") == (None, None, (3, 4, 5))


def test_surfaces_and_cifti(tmp_path: Path) -> None:
    left, _ = pair(tmp_path, np.zeros((7, 20)), 10, step="2000.0")
    assert read_header(left) == (2.0, 7, ())
    image = cifti2.Cifti2Image(np.zeros((6, 21)), (cifti2.SeriesAxis(0, 0.8, 6), places()))
    nibabel.save(image, tmp_path / "s.dtseries.nii")
    assert read_header(tmp_path / "s.dtseries.nii") == (0.8, 6, ())


def test_a_sidecar_has_the_last_word(tmp_path: Path) -> None:
    (tmp_path / "x_bold.h5").write_bytes(b"")
    assert read_header(tmp_path / "x_bold.h5") == NOTHING
    (tmp_path / "x_bold.json").write_text(json.dumps({"RepetitionTime": 1.49}))
    assert read_header(tmp_path / "x_bold.h5").tr == 1.49
    (tmp_path / "x_bold.json").write_text("{")
    assert read_header(tmp_path / "x_bold.h5") == NOTHING


def test_files_that_are_something_else(tmp_path: Path) -> None:
    for name in ("a.nii", "a.nii.gz", "a.gii"):
        (tmp_path / name).write_bytes(b"<html>" * 100)
        assert read_header(tmp_path / name).tr is None
    assert read_header(tmp_path / "none.nii.gz") == NOTHING
