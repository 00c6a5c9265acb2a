"""From the folders of public studies to a report: init, check, preprocess, train, evaluate."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from nibabel import cifti2

from giblet_hpc.cli.main import main
from giblet_hpc.config import io
from giblet_hpc.errors import DataError
from giblet_hpc.files import read_json
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.stages import evaluate, preprocess, train
from giblet_hpc.survey import survey
from giblet_hpc.training.world import World
from tests import layouts
from tests.conftest import TINY

pytestmark = pytest.mark.slow
ALONE = World(0, 0, 1, torch.device("cpu"))
SMALL = [*TINY, "train.epochs=2", "evaluate.samples=1"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layouts.plain(tmp_path_factory.mktemp("source") / "data")


def evaluated(folder: Path, work: Path, *settings: str) -> RunPaths:
    """Take a folder to its report, by what `init` writes of it."""
    written = work / "study.yaml"
    done = CliRunner().invoke(main, ["init", str(folder), "-o", str(written)])
    assert done.exit_code == 0, done.output
    checked = CliRunner().invoke(main, ["config", "check", str(written), "--data"])
    assert checked.exit_code == 0, checked.output
    given = io.load(written)
    kept = [one for one in SMALL if one.split("=")[0].rpartition(".")[2] in given.features.modalities
            or not one.startswith("features.")]  # fmt: skip
    config = io.load(written, [f"study.store={work / 's.zarr'}", *kept, *settings])
    paths = RunPaths(work / "run")
    paths.create(config)
    preprocess.run(config, paths)
    train.run(config, paths, ALONE)
    evaluate.run(config, paths, ALONE)
    assert paths.report.is_file()
    return paths


def ridge_r(paths: RunPaths) -> np.ndarray:
    """Return ridge's r of each target, the mean over subjects."""
    with np.load(paths.evaluation / "maps.npz") as maps:
        return np.nanmean(maps["ridge_r"], axis=0)


@pytest.fixture(scope="module")
def expected(source: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Ridge's r in the plain layout, in the order of voxels."""
    paths = evaluated(source, tmp_path_factory.mktemp("plain"), "bold.mask=varying",
                      "bold.vote_threshold=0.99", "bold.detrend=false")  # fmt: skip
    return ridge_r(paths)


def test_the_planted_answer_is_there(expected: np.ndarray) -> None:
    assert expected.mean() > 0.3


def test_fmriprep_with_sessions(source: Path, tmp_path: Path, expected: np.ndarray) -> None:
    layouts.fmriprep(source, tmp_path / "data")
    paths = evaluated(tmp_path / "data", tmp_path)
    config = io.load(paths.config)
    assert config.bold.confounds is not None
    assert "desc-brain_mask" in config.bold.mask
    found = ridge_r(paths)
    assert found.shape == expected.shape
    # Six columns of noise are regressed out of each course.
    assert np.corrcoef(found, expected)[0, 1] > 0.95
    assert found.mean() > 0.3
    image = nibabel.load(paths.evaluation / "ridge_r.nii.gz")
    np.testing.assert_allclose(image.get_fdata()[layouts.voxels(source)], found, atol=1e-5)
    assert np.array_equal(image.affine, nibabel.load(source / "sub-01_run1.nii.gz").affine)


def test_surfaces(source: Path, tmp_path: Path, expected: np.ndarray) -> None:
    layouts.fsaverage(source, tmp_path / "data")
    paths = evaluated(tmp_path / "data", tmp_path, "bold.detrend=false")
    np.testing.assert_allclose(ridge_r(paths), expected, atol=2e-3)
    folder = paths.evaluation
    halves = [nibabel.load(folder / f"ridge_r_hemi-{side}.func.gii") for side in "LR"]
    values = [half.darrays[0].data for half in halves]
    left = int(layouts.voxels(source).sum()) // 2
    assert [len(value) for value in values] == [left + 7, len(expected) - left + 7]
    np.testing.assert_allclose(np.concatenate([v[:-7] for v in values]), expected, atol=2e-3)
    assert not values[0][-7:].any()


def test_cifti(source: Path, tmp_path: Path, expected: np.ndarray) -> None:
    layouts.cifti(source, tmp_path / "data")
    paths = evaluated(tmp_path / "data", tmp_path, "bold.detrend=false")
    image = nibabel.load(paths.evaluation / "ridge_r.dscalar.nii")
    np.testing.assert_allclose(image.get_fdata()[0], expected, atol=2e-3)
    scans = tmp_path / "data" / "sub-01" / "func"
    places = nibabel.load(next(scans.glob("*.dtseries.nii"))).header.get_axis(1)
    assert isinstance(places, cifti2.BrainModelAxis)
    assert image.header.get_axis(1) == places


def test_parcels_and_words_by_tr(source: Path, tmp_path: Path, expected: np.ndarray) -> None:
    layouts.algonauts(source, tmp_path / "data")
    paths = evaluated(tmp_path / "data", tmp_path, "bold.detrend=false")
    config = io.load(paths.config)
    assert config.bold.dataset == "ses-*_task-{run}"
    assert [run.name for run in config.study.runs] == ["s01e01a", "s01e02a"]
    # The same words, laid out word by word, weigh a little otherwise.
    assert np.corrcoef(ridge_r(paths), expected)[0, 1] > 0.95
    lines = (paths.evaluation / "ridge_r.tsv").read_text().splitlines()
    assert len(lines) == len(expected) + 1


def test_a_ragged_study(source: Path, tmp_path: Path) -> None:
    layouts.ragged(source, tmp_path / "data")
    paths = evaluated(tmp_path / "data", tmp_path, "split.test_runs=[citizenfour]")
    (fold,) = read_json(paths.scores)
    assert fold["rows"][0]["ridge_r"] > 0.2
    with np.load(paths.evaluation / "maps.npz") as maps:
        assert np.isnan(maps["ridge_r"][2]).all()
        assert np.isfinite(maps["ridge_r"][:2]).all()
        assert (maps["ceiling"] > 0).any()


def test_stories_of_a_single_subject(source: Path, tmp_path: Path) -> None:
    layouts.story(source, tmp_path / "data")
    paths = evaluated(tmp_path / "data", tmp_path)
    config = io.load(paths.config)
    assert config.features.modalities == ("audio", "text")
    (fold,) = read_json(paths.scores)
    assert fold["rows"][0]["ridge_r"] > 0.1


def test_subjects_of_two_trs(source: Path, tmp_path: Path, expected: np.ndarray) -> None:
    """The last subject was scanned at a TR of 2 s; all are brought to 1.5 s."""
    layouts.two_trs(source, tmp_path / "data")
    config = io.load(Path(__file__).parents[1] / "configs" / "demo.yaml", [
        f"study.root={tmp_path / 'data'}", f"study.store={tmp_path / 's.zarr'}", *SMALL,
        "evaluate.best_r=null", "bold.detrend=false", "bold.mask=varying",
        "bold.vote_threshold=0.99", "bold.max_missing_trs=10",
    ])  # fmt: skip
    with pytest.raises(DataError, match=r"has a TR of 2 s; the config says 1.5 s") as caught:
        survey(config)
    assert "bold.resample" in caught.value.hint
    config = config.model_copy(update={"bold": config.bold.model_copy(update={"resample": True})})
    paths = RunPaths(tmp_path / "run")
    paths.create(config)
    preprocess.run(config, paths)
    train.run(config, paths, ALONE)
    evaluate.run(config, paths, ALONE)
    with np.load(paths.evaluation / "maps.npz") as maps:
        found = maps["ridge_r"]
    assert np.corrcoef(found[2], expected)[0, 1] > 0.8
    assert found[2].mean() > 0.25
