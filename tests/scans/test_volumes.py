from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nilearn.signal import clean as nilearn_clean

from giblet_hpc.config.bold import Bold
from giblet_hpc.config.study import ScanRun, Study
from giblet_hpc.errors import ConfigError, DataError
from giblet_hpc.scans import cleaning, masks
from giblet_hpc.scans import volumes as bold
from giblet_hpc.subjects import find_subjects

RANDOM = np.random.default_rng(0)


def save(path: Path, data: np.ndarray, tr: float = 1.5, affine: np.ndarray | None = None) -> None:
    image = nibabel.Nifti1Image(data.astype(np.float32), np.eye(4) if affine is None else affine)
    if data.ndim == 4:
        image.header.set_zooms((3, 3, 3, tr))
        image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)


def study(tmp_path: Path, *names: str, trs: int | None = None, subjects: object = "all") -> Study:
    runs = tuple(ScanRun(name=name, trs=trs) for name in names or ("a",))
    return Study(name="s", root=tmp_path, tr=1.5, runs=runs, subjects=subjects)


def test_subjects_are_found_in_natural_order(tmp_path: Path) -> None:
    for name in ("1", "2", "10"):
        save(tmp_path / f"s{name}.nii.gz", RANDOM.random((2, 2, 2, 6)))
    options = Bold(files="s{subject}.nii.gz")
    assert find_subjects(study(tmp_path), options) == ("1", "2", "10")
    assert find_subjects(study(tmp_path, subjects=2), options) == ("1", "2")
    with pytest.raises(DataError, match=r"lists \['7'\], who have no scans"):
        find_subjects(study(tmp_path, subjects=("1", "7")), options)
    with pytest.raises(DataError, match="asks for 5; found 3"):
        find_subjects(study(tmp_path, subjects=5), options)
    with pytest.raises(DataError, match="no scans match"):
        find_subjects(study(tmp_path), Bold(files="none{subject}.nii"))


def test_patterns_may_be_absolute(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    save(tmp_path / "elsewhere" / "s1_a.nii.gz", RANDOM.random((2, 2, 2, 6)))
    options = Bold(files=f"{tmp_path}/elsewhere/s{{subject}}_{{run}}.nii.gz")
    other = study(tmp_path / "root")
    assert find_subjects(other, options) == ("1",)
    assert bold.open_scans("1", other, options).trs("a") == 6


def test_runs_in_one_file_or_in_several(tmp_path: Path) -> None:
    data = RANDOM.random((2, 3, 2, 10)).astype(np.float32)
    save(tmp_path / "s1.nii.gz", data)
    scans = bold.open_scans("1", study(tmp_path, "a", "b", trs=5), Bold(files="s{subject}.nii.gz"))
    np.testing.assert_allclose(scans.volumes("b"), data[..., 5:], rtol=1e-5)
    assert scans.trs("b") == 5
    save(tmp_path / "s1_b.nii.gz", data[..., :7])
    save(tmp_path / "s1_a.nii.gz", data)
    scans = bold.open_scans("1", study(tmp_path, "a", "b"), Bold(files="s{subject}_{run}.nii.gz"))
    assert (scans.trs("a"), scans.trs("b")) == (10, 7)
    with pytest.raises(ConfigError, match="`trs` is needed"):
        bold.open_scans("1", study(tmp_path, "a", "b"), Bold(files="s{subject}.nii.gz"))


def test_contradicting_files(tmp_path: Path) -> None:
    options = Bold(files="s{subject}.nii.gz")
    save(tmp_path / "s1.nii.gz", RANDOM.random((2, 2, 2, 6)), tr=2.0)
    with pytest.raises(DataError, match="has a TR of 2 s; the config says 1.5 s"):
        bold.open_scans("1", study(tmp_path), options)
    save(tmp_path / "s1.nii.gz", RANDOM.random((2, 2, 2)))
    with pytest.raises(DataError, match="has 3 dimensions"):
        bold.open_scans("1", study(tmp_path), options)
    (tmp_path / "s1.nii.gz").write_bytes(b"no scan")
    with pytest.raises(DataError, match="cannot read .* as NIfTI"):
        bold.open_scans("1", study(tmp_path), options)
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2)), np.eye(4))
    other = bold.Grid((2, 2, 3), bold.grid_of(image).affine)
    with pytest.raises(DataError, match=r"has a grid of \(2, 2, 2\) voxels; the study's is"):
        bold.check_grid("x.nii", image, other)
    moved = nibabel.Nifti1Image(np.zeros((2, 2, 2)), np.diag([3, 3, 3, 1]))
    with pytest.raises(DataError, match="lies elsewhere in space"):
        bold.check_grid("x.nii", moved, bold.grid_of(image))


@given(st.integers(5, 30), st.integers(1, 8), st.integers(0, 2**31))
def test_standardise_and_restore(trs: int, voxels: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    courses = (800 + 10 * random.standard_normal((trs, voxels))).astype(np.float32)
    courses[:, 0] = 812.5
    zscored, statistics = cleaning.standardise(courses)
    assert not zscored[:, 0].any()
    assert statistics[1, 0] == 1
    np.testing.assert_allclose(zscored[:, 1:].std(0), 1, atol=1e-3)
    np.testing.assert_allclose(cleaning.restore(zscored, statistics), courses, rtol=1e-4)


@given(st.integers(8, 40), st.integers(0, 5), st.booleans())
def test_cut_and_constant_ends_are_found(trs: int, missing: int, filled: bool) -> None:
    courses = np.random.default_rng(trs).standard_normal((trs, 4)).astype(np.float32)
    courses[:, 2] = 7
    valid = trs - missing
    if filled and missing:
        courses[valid:] = 3
        # The first of the constant volumes cannot be told from data.
        assert cleaning.valid_trs(courses, trs) in (valid, valid + (missing == 1))
    else:
        assert cleaning.valid_trs(courses[:valid], trs) == valid
    assert cleaning.valid_trs(np.ones((9, 3), np.float32), 9) == 0


def test_vote_follows_the_temporal_deviation() -> None:
    volumes = np.zeros((4, 4, 4, 50), np.float32)
    volumes[1:3, 1:3, 1:3] = 5 * RANDOM.standard_normal((2, 2, 2, 50))
    volumes[0, 0, 0] = 0.01 * RANDOM.standard_normal(50)
    mask = masks.vote_mask(volumes, Bold())
    assert mask.sum() == 8
    assert mask[1:3, 1:3, 1:3].all()
    with pytest.raises(DataError, match="no voxel varies"):
        masks.vote_mask(np.ones((2, 2, 2, 9), np.float32), Bold())


def test_cleaning_equals_nilearn_and_keeps_the_mean() -> None:
    courses = (100 + np.linspace(0, 20, 80)[:, None] + RANDOM.standard_normal((80, 5))).astype(
        np.float32
    )
    confounds = RANDOM.standard_normal((80, 2)).astype(np.float32)
    options = Bold(detrend=True, high_pass=0.01)
    made = cleaning.clean(courses, bold=options, tr=1.5, confounds=confounds)
    expected = nilearn_clean(
        courses, detrend=True, standardize=None, filter="cosine", high_pass=0.01, t_r=1.5,
        confounds=confounds,
    )  # fmt: skip
    np.testing.assert_allclose(made - courses.mean(0), expected, atol=2e-2)
    assert cleaning.clean(courses, bold=Bold(), tr=1.5, confounds=None) is courses


def test_confound_tables(tmp_path: Path) -> None:
    path = tmp_path / "confounds.tsv"
    pd.DataFrame({"a": ["n/a", 1.0, 2.0], "b": [3.0, 4.0, 5.0]}).to_csv(path, sep="\t", index=False)
    np.testing.assert_array_equal(
        cleaning.read_confounds(path, ["a", "b"]), [[1, 3], [1, 4], [2, 5]]
    )
    with pytest.raises(DataError, match=r"lacks the columns \['c'\]"):
        cleaning.read_confounds(path, ["c"])


def test_values_go_back_into_space() -> None:
    mask = RANDOM.random((3, 4, 5)) > 0.5
    affine = np.diag([3.0, 3, 3, 1])
    grid = bold.Grid(mask.shape, tuple(map(tuple, affine.tolist())))
    values = RANDOM.standard_normal((6, mask.sum())).astype(np.float32)
    image = bold.to_image(values, mask, grid)
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32)[mask].T, values)
    np.testing.assert_array_equal(image.affine, affine)
    assert not image.get_fdata()[~mask].any()
