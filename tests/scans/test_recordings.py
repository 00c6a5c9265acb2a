"""Which kind a file is; and one subject's runs."""

from __future__ import annotations

from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest

from giblet_hpc.config.bold import Bold
from giblet_hpc.config.study import ScanRun, Study
from giblet_hpc.errors import ConfigError, DataError
from giblet_hpc.scans import recordings
from giblet_hpc.scans.recordings import Scans
from giblet_hpc.scans.tables import Columns, TableFile
from giblet_hpc.scans.volumes import VolumeFile
from giblet_hpc.study_files import StudyFiles
from tests.scans.test_volumes import save

RANDOM = np.random.default_rng(0)


def study(tmp_path: Path, *names: str, trs: int | None = None) -> Study:
    runs = tuple(ScanRun(name=name, trs=trs) for name in names or ("a",))
    return Study(name="s", root=tmp_path, tr=1.5, runs=runs)


def opened(own: Study, bold: Bold, subject: str = "1") -> Scans:
    return recordings.open_scans(subject, own, bold, StudyFiles(own, bold))


def test_runs_in_one_file_or_in_several(tmp_path: Path) -> None:
    data = RANDOM.random((2, 3, 2, 10)).astype(np.float32)
    save(tmp_path / "s1.nii.gz", data)
    scans = opened(study(tmp_path, "a", "b", trs=5), Bold(files="s{subject}.nii.gz"))
    np.testing.assert_allclose(scans.rows("b"), np.moveaxis(data, -1, 0)[5:], rtol=1e-5)
    assert scans.trs("b") == 5
    save(tmp_path / "s1_b.nii.gz", data[..., :7])
    save(tmp_path / "s1_a.nii.gz", data)
    scans = opened(study(tmp_path, "a", "b"), Bold(files="s{subject}_{run}.nii.gz"))
    assert (scans.trs("a"), scans.trs("b")) == (10, 7)
    with pytest.raises(ConfigError, match="`trs` is needed"):
        opened(study(tmp_path, "a", "b"), Bold(files="s{subject}.nii.gz"))


def test_patterns_may_be_absolute(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    save(tmp_path / "elsewhere" / "s1_a.nii.gz", RANDOM.random((2, 2, 2, 6)))
    options = Bold(files=f"{tmp_path}/elsewhere/s{{subject}}_{{run}}.nii.gz")
    assert opened(study(tmp_path / "root"), options).trs("a") == 6


def test_contradicting_files(tmp_path: Path) -> None:
    options = Bold(files="s{subject}.nii.gz")
    save(tmp_path / "s1.nii.gz", RANDOM.random((2, 2, 2, 6)), tr=2.0)
    with pytest.raises(DataError, match="has a TR of 2 s; the config says 1.5 s"):
        opened(study(tmp_path, trs=6), options)
    save(tmp_path / "s1.nii.gz", RANDOM.random((2, 2, 2)))
    with pytest.raises(DataError, match="holds one volume; a run of scans has many"):
        opened(study(tmp_path, trs=6), options)


def test_a_dataset_for_each_run(tmp_path: Path) -> None:
    rows = RANDOM.standard_normal((6, 4)).astype(np.float32)
    with h5py.File(tmp_path / "sub-01_bold.h5", "w") as file:
        file["ses-003_task-a"], file["ses-007_task-b"] = rows, 2 * rows
    bold = Bold(files="sub-{subject}_bold.h5", dataset="ses-*_task-{run}")
    scans = opened(study(tmp_path, "a", "b"), bold, "01")
    np.testing.assert_array_equal(scans.rows("b"), 2 * rows)
    with pytest.raises(DataError, match="none of its arrays fit bold.dataset 'ses-\\*_task-c'"):
        opened(study(tmp_path, "a", "c"), bold, "01")


def test_kinds_by_the_end_of_a_name(tmp_path: Path) -> None:
    save(tmp_path / "S.NII", np.ones((2, 2, 2, 5), np.float32))
    np.save(tmp_path / "s.npy", np.ones((5, 3)))
    assert isinstance(recordings.open_recording([tmp_path / "S.NII"]), VolumeFile)
    assert isinstance(recordings.open_recording([tmp_path / "s.npy"]), TableFile)


def test_spaces_of_other_kinds_do_not_mix(tmp_path: Path) -> None:
    path = save(tmp_path / "s.nii", np.ones((2, 2, 2, 5), np.float32))
    with pytest.raises(DataError, match="holds voxels; the study's scans are columns of a table"):
        Columns(8).check(path, VolumeFile([path]).space)
    for space in (Columns(8), VolumeFile([path]).space):
        again = recordings.restored_space(space.shape, recordings.stored_space(space))
        assert again == space


def test_labels_in_the_space_of_the_scans(tmp_path: Path) -> None:
    labels = np.array([0, 1, 2, 1], dtype=np.int32)
    np.save(tmp_path / "atlas.npy", labels)
    found = recordings.read_labels(tmp_path, "atlas.npy", Columns(4))
    np.testing.assert_array_equal(found.values, labels)
    with pytest.raises(DataError, match="has 4 columns; the study's tables have 5"):
        recordings.read_labels(tmp_path, "atlas.npy", Columns(5))
    nibabel.save(nibabel.Nifti1Image(np.ones((2, 2, 2), np.int16), np.eye(4)), tmp_path / "m.nii")
    with pytest.raises(DataError, match="holds voxels"):
        recordings.read_labels(tmp_path, "m.nii", Columns(8))


def test_a_tr_of_one_second_counts_where_scans_are_resampled(tmp_path: Path) -> None:
    save(tmp_path / "s1_a.nii", RANDOM.random((2, 2, 2, 90)), tr=1.0)
    pattern = "s{subject}_{run}.nii"
    assert opened(study(tmp_path), Bold(files=pattern)).trs("a") == 90
    scans = opened(study(tmp_path), Bold(files=pattern, resample=True))
    assert (scans.file_tr("a"), scans.trs("a"), scans.scanned("a")) == (1.0, 60, 90)


def test_one_run_opens_its_own_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        save(tmp_path / f"s1_{name}.nii", RANDOM.random((2, 2, 2, 6)))
    seen = []
    real = recordings.open_recording
    monkeypatch.setattr(
        recordings, "open_recording", lambda paths, *more: seen.append(paths) or real(paths, *more)
    )
    own, bold = study(tmp_path, "a", "b", "c"), Bold(files="s{subject}_{run}.nii")
    scans = recordings.open_scans("1", own, bold, StudyFiles(own, bold), only="b")
    assert list(scans.recordings) == ["b"]
    assert seen == [(tmp_path / "s1_b.nii",)]
