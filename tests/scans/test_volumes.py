"""Volumes: what files may be, and that they go back where they came from."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from giblet_hpc.errors import DataError
from giblet_hpc.scans import volumes
from giblet_hpc.scans.volumes import Grid, VolumeFile

RANDOM = np.random.default_rng(0)
AFFINE = np.diag([3.0, 3.0, 4.0, 1.0])
MASK = np.zeros((3, 4, 5), dtype=bool)
MASK[1, 1:3, 2:4] = True


def grid(affine: np.ndarray = AFFINE, size: tuple[int, ...] = (3, 4, 5)) -> Grid:
    return Grid(size, tuple(map(tuple, affine.tolist())))


def save(path: Path, data: np.ndarray, *, tr: float = 1.5, unit: str = "sec") -> Path:
    image = nibabel.Nifti1Image(data, AFFINE)
    if data.ndim == 4:
        image.header.set_zooms((3, 3, 3, tr))
        image.header.set_xyzt_units("mm", unit)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti1Pair, nibabel.Nifti2Image])
def test_rows_are_the_volumes_of_any_nifti(tmp_path: Path, kind: type) -> None:
    data = RANDOM.random((2, 3, 4, 6)).astype(np.float32)
    image = kind(data, AFFINE)
    path = tmp_path / ("s.img.gz" if kind is nibabel.Nifti1Pair else "s.nii.gz")
    nibabel.save(image, path)
    found = VolumeFile([path])
    assert (found.trs, found.space.size) == (6, (2, 3, 4))
    np.testing.assert_array_equal(found.rows(slice(2, 5)), np.moveaxis(data, -1, 0)[2:5])
    assert len(found.sample(slice(None), 4)) == 4


def test_a_sample_is_spread_where_that_is_cheap(tmp_path: Path) -> None:
    data = np.arange(10, dtype=np.float32)[None, None, None].repeat(2, 0)
    packed = VolumeFile([save(tmp_path / "s.nii.gz", data)])
    plain = VolumeFile([save(tmp_path / "s.nii", data)])
    assert packed.sample(slice(2, 10), 3)[:, 0, 0, 0].tolist() == [2, 3, 4]
    assert plain.sample(slice(2, 10), 3)[:, 0, 0, 0].tolist() == [2, 6, 9]


@pytest.mark.parametrize(
    ("stated", "unit", "expected"),
    [
        (0, "sec", None),
        (1, "sec", None),
        (1, "unknown", None),
        (1000, "msec", 1.0),
        (2000, "msec", 2.0),
        (1.5, "sec", 1.5),
        (1.5, "unknown", 1.5),
    ],
)
def test_only_a_writers_default_is_no_statement(
    tmp_path: Path, stated: float, unit: str, expected: float | None
) -> None:
    path = save(tmp_path / "s.nii", np.ones((2, 2, 2, 5), np.float32), tr=stated, unit=unit)
    assert VolumeFile([path]).tr == (None if expected is None else pytest.approx(expected))


def test_a_flipped_bit_is_refused_wherever_it_is(tmp_path: Path) -> None:
    """300 of 300: beyond gzip's own header, which says nothing of the data."""
    data = RANDOM.integers(0, 1000, (5, 5, 4, 40)).astype(np.int16)
    whole = save(tmp_path / "s.nii.gz", data).read_bytes()
    path, silent = tmp_path / "bad.nii.gz", []
    for number in range(300):
        place = int(RANDOM.integers(10, len(whole)))
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(RANDOM.integers(8))
        path.unlink(missing_ok=True)
        path.write_bytes(damaged)
        try:
            VolumeFile([path]).rows(slice(None))
        except DataError as error:
            assert str(path) in str(error)
        else:
            silent.append((number, place))
    assert not silent


def test_the_end_is_checked_also_where_only_the_begin_is_wanted(tmp_path: Path) -> None:
    data = RANDOM.integers(0, 1000, (4, 4, 4, 30)).astype(np.int16)
    path = save(tmp_path / "s.nii.gz", data)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="CRC check failed"):
        VolumeFile([path]).rows(slice(0, 2))


def test_what_is_no_scan(tmp_path: Path) -> None:
    path = tmp_path / "s.nii.gz"
    path.write_bytes(b"no scan")
    with pytest.raises(DataError, match="cannot be read as NIfTI"):
        VolumeFile([path])
    old = nibabel.Spm2AnalyzeImage(np.ones((2, 2, 2, 5), np.float32), AFFINE)
    nibabel.save(old, tmp_path / "s.img")
    with pytest.raises(DataError, match="Analyze, not NIfTI"):
        VolumeFile([tmp_path / "s.img"])
    nibabel.save(nibabel.MGHImage(np.ones((2, 2, 2, 5), np.float32), AFFINE), tmp_path / "s.mgz")
    with pytest.raises(DataError, match="MGH, not NIfTI"):
        VolumeFile([tmp_path / "s.mgz"])
    save(tmp_path / "many.nii", np.ones((2, 2, 2, 5, 2), np.float32))
    with pytest.raises(DataError, match="has 5 dimensions"):
        VolumeFile([tmp_path / "many.nii"])


def test_a_mask_has_one_volume_of_whole_numbers(tmp_path: Path) -> None:
    labels = RANDOM.integers(0, 4, (2, 3, 4)).astype(np.int16)
    found = VolumeFile([save(tmp_path / "a.nii", labels)]).labels()
    np.testing.assert_array_equal(found.values, labels)
    with pytest.raises(DataError, match="has 3 volumes; a mask or an atlas of labels has one"):
        VolumeFile([save(tmp_path / "b.nii", np.ones((2, 3, 4, 3), np.int16))]).labels()
    with pytest.raises(DataError, match="holds fractions such as 0.25"):
        VolumeFile([save(tmp_path / "c.nii", np.full((2, 3, 4), 0.25, np.float32))]).labels()


def test_grids_that_differ() -> None:
    with pytest.raises(DataError, match=r"has a grid of \(2, 2, 2\) voxels; the study's is"):
        grid().check("x.nii", grid(size=(2, 2, 2)))
    with pytest.raises(DataError, match="lies elsewhere in space"):
        grid().check("x.nii", grid(np.eye(4)))
    grid().check("x.nii", grid())


def test_a_map_lies_where_its_voxels_are(tmp_path: Path) -> None:
    values = np.arange(1.0, 5.0)
    (path,) = grid().write(tmp_path / "r", values, MASK)
    image = nibabel.load(path)
    data = image.get_fdata()
    np.testing.assert_array_equal(data[MASK], values)
    assert not data[~MASK].any()
    np.testing.assert_array_equal(image.affine, AFFINE)
    assert [file.name for file in tmp_path.iterdir()] == ["r.nii.gz"], "nothing half written"


def test_volumes_keep_their_order_and_their_tr(tmp_path: Path) -> None:
    values = np.arange(12.0).reshape(3, 4)
    (path,) = grid().write(tmp_path / "scan", values, MASK, tr=1.5)
    image = nibabel.load(path)
    np.testing.assert_array_equal(image.get_fdata()[MASK].T, values)
    assert VolumeFile([path]).tr == 1.5
    np.testing.assert_array_equal(VolumeFile([path]).rows(slice(None))[:, MASK], values)


def test_a_picture_is_of_slices_that_hold_voxels() -> None:
    values = np.array([-2.0, 0.0, 1.0, 0.5])
    figure = grid().draw(values, MASK, limit=2.0, label="r")
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == ["z = 8 mm", "z = 12 mm"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["L", "R"]
    turned = grid(np.diag([-3.0, 3.0, 4.0, 1.0])).draw(values, MASK, limit=0.5, label="r")
    assert [text.get_text() for text in turned.axes[0].texts] == ["R", "L"]
    assert turned.axes[0].get_images()[0].norm.vmax == 0.5


def test_bytes_after_a_gzip_file_are_no_scan(tmp_path: Path) -> None:
    path = save(tmp_path / "s.nii.gz", np.ones((2, 2, 2, 5), np.float32))
    path.write_bytes(path.read_bytes() + b"\n--boundary--")
    with pytest.raises(DataError, match="cannot be read as NIfTI"):
        VolumeFile([path]).rows(slice(None))
    assert gzip.decompress(save(path, np.ones((2, 2, 2, 5), np.float32)).read_bytes())
    volumes.open_image(path)
