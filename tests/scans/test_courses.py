"""A subject's scans in the store."""

from __future__ import annotations

from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest

from giblet_hpc.config import io
from giblet_hpc.config.run import RunConfig
from giblet_hpc.digests import Digests
from giblet_hpc.errors import ConfigError, DataError
from giblet_hpc.scans import courses
from giblet_hpc.scans.files import StudyScans
from giblet_hpc.scans.masks import mask_array
from giblet_hpc.scans.tables import Columns
from giblet_hpc.scans.volumes import Grid
from giblet_hpc.store import FeatureStore
from giblet_hpc.study_files import StudyFiles

MASK = np.ones((2, 2, 1), dtype=bool)
GRID = Grid((2, 2, 1), tuple(tuple(float(v) for v in row) for row in np.eye(4)))


@pytest.fixture
def config(tmp_path: Path, demo_config: str) -> RunConfig:
    settings = [
        f"study.root={tmp_path}", "study.runs=[{name: a, trs: 12, film: a.mp4}, {name: b, trs: 8, film: b.mp4}]",
        "bold.files=s{subject}.nii.gz", "bold.detrend=false", "bold.high_pass=null",
        "bold.max_missing_trs=4", "split.test_runs=[b]", "bold.regions=null", "evaluate.best_r=null",
    ]  # fmt: skip
    return io.load(Path(demo_config), settings)


def study_scans(config: RunConfig) -> StudyScans:
    files = StudyFiles(config.study, config.bold)
    return StudyScans(config, files, files.subjects, {"a": 12, "b": 8}, GRID)


def write(
    config: RunConfig, tmp_path: Path, scans: np.ndarray, run: str, *, store: str = "store.zarr"
) -> FeatureStore:
    image = nibabel.Nifti1Image(scans.astype(np.float32), np.eye(4))
    image.header.set_zooms((1, 1, 1, config.study.tr))
    nibabel.save(image, tmp_path / "s1.nii.gz")
    made = FeatureStore(tmp_path / store)
    made.plan([])
    digests = Digests(made)
    own = study_scans(config)
    mask = mask_array(own, digests)
    arrays = courses.course_arrays(own, digests, mask=mask, voxels=4)["1", run]
    made.plan(arrays)
    courses.write_courses(own, made, arrays, mask=MASK, subject="1", run_name=run)
    return made


def test_runs_that_follow_each_other_in_a_file(config: RunConfig, tmp_path: Path) -> None:
    scans = np.random.default_rng(0).normal(100, 5, (2, 2, 1, 20))
    store = write(config, tmp_path, scans, "b")
    own = scans.reshape(4, 20)[:, 12:].T
    expected = (own - own.mean(axis=0)) / own.std(axis=0)
    np.testing.assert_allclose(store.read("bold/1/b"), expected, atol=1e-3)
    np.testing.assert_allclose(store.read("stats/1/b")[0], own.mean(axis=0), rtol=1e-4)
    assert store.read("valid/1/b").all()
    assert study_scans(config).rows_in_file("b") == [12, 20]
    assert study_scans(config).rows_in_file("a") == [0, 12]


def test_trs_without_data_at_the_end_are_left_out(config: RunConfig, tmp_path: Path) -> None:
    scans = np.random.default_rng(0).normal(100, 5, (2, 2, 1, 20))
    scans[..., 17:] = 0
    store = write(config, tmp_path, scans, "b")
    assert store.read("valid/1/b").tolist() == [1] * 5 + [0] * 3
    assert not store.read("bold/1/b")[5:].any()


def test_too_many_missing_and_infinite_values(config: RunConfig, tmp_path: Path) -> None:
    scans = np.random.default_rng(0).normal(100, 5, (2, 2, 1, 20))
    scans[..., 14:] = 0
    with pytest.raises(DataError, match="only 2 of 8 TRs of run b hold data"):
        write(config, tmp_path, scans, "b")
    scans[0, 0, 0, 3] = np.inf
    with pytest.raises(DataError, match="1 voxels inside the mask hold NaN or infinity in run a"):
        write(config, tmp_path, scans, "a")


def test_one_empty_scan_in_the_middle_is_left_out(config: RunConfig, tmp_path: Path) -> None:
    scans = np.random.default_rng(0).normal(100, 5, (2, 2, 1, 20))
    scans[..., 15] = 0
    store = write(config, tmp_path, scans, "b")
    assert store.read("valid/1/b").tolist() == [1, 1, 1, 0, 1, 1, 1, 1]
    own = np.delete(scans.reshape(4, 20)[:, 12:].T, 3, axis=0)
    expected = (own - own.mean(axis=0)) / own.std(axis=0)
    np.testing.assert_allclose(np.delete(store.read("bold/1/b"), 3, axis=0), expected, atol=1e-3)
    assert not store.read("bold/1/b")[3].any()


@pytest.mark.parametrize("rows", [20, 24, 19])
def test_confounds_have_a_row_for_each_scan(config: RunConfig, tmp_path: Path, rows: int) -> None:
    random = np.random.default_rng(0)
    scans = random.normal(100, 5, (2, 2, 1, 20))
    bold = config.bold.model_copy(
        update={"confounds": "c{subject}.txt", "confound_columns": ("1",)}
    )
    np.savetxt(tmp_path / "c1.txt", random.standard_normal((rows, 2)))
    own = config.model_copy(update={"bold": bold})
    if rows != 20:
        with pytest.raises(DataError, match=rf"c1.txt has {rows} rows; .*s1.nii.gz has 20 scans"):
            write(own, tmp_path, scans, "b")
        return
    store = write(own, tmp_path, scans, "b")
    regressor = np.loadtxt(tmp_path / "c1.txt")[12:, 0]
    left = np.corrcoef(store.read("bold/1/b").T, regressor)[-1, :-1]
    assert np.abs(left).max() < 1e-5


def test_scans_that_confounds_rule_out(config: RunConfig, tmp_path: Path) -> None:
    moved = np.full(20, 0.1)
    moved[[13, 17]] = 2.0
    table = "framewise_displacement\n" + "\n".join(f"{value:g}" for value in moved)
    (tmp_path / "c1.tsv").write_text(table + "\n")
    bold = config.bold.model_copy(
        update={"confounds": "c{subject}.tsv", "confound_columns": (), "scrub_fd": 0.5}
    )
    scans = np.random.default_rng(0).normal(100, 5, (2, 2, 1, 20))
    store = write(config.model_copy(update={"bold": bold}), tmp_path, scans, "b")
    assert store.read("valid/1/b").tolist() == [1, 0, 1, 1, 1, 0, 1, 1]
    strict = bold.model_copy(update={"scrub_fd": 0.05})
    with pytest.raises(DataError, match="confounds leave 0 of 8 TRs"):
        write(config.model_copy(update={"bold": strict}), tmp_path, scans, "b", store="other.zarr")


def test_a_run_whose_length_is_not_given(config: RunConfig) -> None:
    run = config.study.runs[0].model_copy(update={"trs": None})
    study = config.study.model_copy(update={"runs": (run,)})
    with pytest.raises(ConfigError, match="`trs` is needed"):
        study_scans(config.model_copy(update={"study": study})).rows_in_file("a")


def test_what_a_run_stands_for_is_part_of_its_provenance(config: RunConfig, tmp_path: Path) -> None:
    """Another array of the same file is other data."""
    random = np.random.default_rng(0)
    with h5py.File(tmp_path / "s1.h5", "w") as file:
        for name in "ab":
            file[f"task-{name}"] = random.standard_normal((12, 4)).astype(np.float32)
    bold = config.bold.model_copy(update={"files": "s{subject}.h5", "dataset": "task-{run}"})

    def fingerprints(label: str) -> tuple[str, str]:
        run = config.study.runs[0].model_copy(update={"label": label})
        study = config.study.model_copy(update={"runs": (run,)})
        own = config.model_copy(update={"bold": bold, "study": study})
        files = StudyFiles(own.study, own.bold)
        scans = StudyScans(own, files, files.subjects, {"a": 12}, Columns(4))
        store = FeatureStore(tmp_path / "f.zarr")
        store.plan([])
        digests = Digests(store)
        mask = mask_array(scans, digests)
        arrays = courses.course_arrays(scans, digests, mask=mask, voxels=4)["1", "a"]
        return mask.fingerprint, arrays.zscored.fingerprint

    first, second = fingerprints("a"), fingerprints("b")
    assert first[0] != second[0]
    assert first[1] != second[1]
