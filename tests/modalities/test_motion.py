"""Motion energy: a region that answers to motion is found by it, and not by pixels."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from scipy.stats import gamma

from giblet_hpc.config import io
from giblet_hpc.config.features import MotionFeatures
from giblet_hpc.evaluation.baselines import Baselines
from giblet_hpc.evaluation.scores import score_maps
from giblet_hpc.files import read_json
from giblet_hpc.media import film
from giblet_hpc.modalities.motion import Motion, _filtered, _luminance
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.splits import load_folds
from giblet_hpc.stages import preprocess
from giblet_hpc.stages.train import statistics_of
from giblet_hpc.store import FeatureStore
from giblet_hpc.training.feed import load_study
from giblet_hpc.training.statistics import fitted_modalities
from giblet_hpc.training.world import World
from tests.films import write_film

TR, FPS, TRS = 2.0, 8, 200
HEIGHT, WIDTH = 18, 32
MOTION = "{motion: {height: 18, width: 32, fps: 8}}"


def gratings(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return frames of gratings that drift left or right, and the direction in each TR.

    Phase, and so the mean of every pixel, is by chance; only where it goes tells the direction.
    """
    directions = np.repeat(random.choice([-1, 1], TRS // 2), 2)
    columns = np.arange(WIDTH) / WIDTH
    frames, phase = [], 0.0
    for direction in directions:
        phase += random.uniform(0, 2 * np.pi)
        for _ in range(round(TR * FPS)):
            phase -= direction * 2 * np.pi * 4 / FPS / 2
            line = 127 + 100 * np.sin(2 * np.pi * 4 * columns + phase)
            frames.append(np.repeat(line[None, :, None], HEIGHT, 0).repeat(3, 2))
    return np.array(frames).round().astype(np.uint8), directions


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of gratings; voxels that answer to the direction, and voxels of noise."""
    folder = tmp_path_factory.mktemp("gratings")
    random = np.random.default_rng(0)
    seconds = np.arange(0, 24, TR) + TR / 2
    response = gamma.pdf(seconds, 6) - gamma.pdf(seconds, 14) / 6
    for run in ("a", "b"):
        frames, directions = gratings(random)
        write_film(folder / f"{run}.mp4", frames, fps=FPS)
        signal = np.convolve(directions, response)[:TRS]
        signal /= signal.std()
        scans = random.standard_normal((4, 5, 1, TRS))
        scans[:, :3] += 2 * signal
        image = nibabel.Nifti1Image((100 + scans).astype(np.float32), np.eye(4))
        image.header.set_zooms((3, 3, 3, TR))
        image.header.set_xyzt_units("mm", "sec")
        nibabel.save(image, folder / f"sub-1_{run}.nii.gz")
    return folder


def preprocessed(study: Path, folder: Path, features: str) -> RunPaths:
    settings = [
        f"study.root={study}", f"study.store={folder / 's.zarr'}", f"study.tr={TR}",
        "study.runs=[{name: a, film: a.mp4}, {name: b, film: b.mp4}]", "study.annotations={}",
        f"features={features}", "bold.regions=null", "bold.region_names=null",
        "bold.mask=varying", "bold.detrend=false", "evaluate.best_r=null",
        "split={scheme: runs, test_runs: [b], validation_fraction: 0.2}",
    ]  # fmt: skip
    config = io.load(Path(__file__).parents[2] / "configs" / "demo.yaml", settings)
    paths = RunPaths(folder / "run")
    paths.create(config)
    preprocess.run(config, paths)
    return paths


@pytest.fixture(scope="module")
def by_motion(study: Path, tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    return preprocessed(study, tmp_path_factory.mktemp("motion"), MOTION)


def ridge_r(paths: RunPaths) -> np.ndarray:
    """Return ridge's r, (4, 5), of the run that is held out."""
    config = paths.load_config()
    world = World(0, 0, 1, torch.device("cpu"))
    loaded = load_study(config, read_json(paths.inputs), memory=None)
    (fold,) = load_folds(paths.split)
    statistics = statistics_of(config, paths, fold, study=loaded, world=world)
    kinds = fitted_modalities(modalities_of(config.features), loaded, statistics)
    file = paths.root / "ridge.npy"
    Baselines(config, loaded, kinds, fold, world=world).write(paths.root)
    return score_maps(loaded, fold.test, {"ridge": np.load(file)}, world)["ridge_r"].reshape(4, 5)


@pytest.mark.slow
def test_a_motion_region_is_found_by_motion_and_not_by_pixels(
    study: Path, by_motion: RunPaths, tmp_path: Path
) -> None:
    best = 2 / np.sqrt(5)
    found = ridge_r(by_motion)
    assert found[:, :3].mean() > 0.8 * best
    assert np.abs(found[:, 3:]).max() < 0.4
    video = "{video: {height: 18, width: 32, frame_skip: 4}}"
    pixels = ridge_r(preprocessed(study, tmp_path, video))
    assert pixels[:, :3].mean() < 0.3 * best


@pytest.mark.slow
def test_energies_do_not_depend_on_where_the_work_is_cut(study: Path, by_motion: RunPaths) -> None:
    """Rows in the store equal those of all frames filtered at once."""
    config = by_motion.load_config()
    assert config.study.store is not None
    stored = FeatureStore(config.study.store).read("stimulus/a/motion")
    pyramid = Motion("motion", MotionFeatures(height=HEIGHT, width=WIDTH, fps=FPS))._pyramid()
    assert stored.shape == (TRS, pyramid.nfilters)
    times = (np.arange(-5, 40 * 16 + 5) + 0.5) / FPS
    frames = film.sample_frames(study / "a.mp4", times, height=HEIGHT, width=WIDTH)
    whole = _filtered(pyramid, np.stack([_luminance(frame) for frame in frames]))[5:-5]
    expected = whole.reshape(40, 16, -1).mean(1)
    np.testing.assert_allclose(stored[1:39], expected[1:39], atol=1e-3)
