"""The linear baseline of a study with planted regions: what each modality carries, and controls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge

from giblet_hpc.config import io
from giblet_hpc.config.features import OwnFeatures
from giblet_hpc.config.run import RunConfig
from giblet_hpc.evaluation import baselines, blocks, scores
from giblet_hpc.evaluation.controls import PreviousScan
from giblet_hpc.evaluation.fold import ScoredFold
from giblet_hpc.evaluation.penalised import shared_settings
from giblet_hpc.evaluation.principal import principal_features
from giblet_hpc.files import read_json
from giblet_hpc.modalities.own import Own
from giblet_hpc.scans.tables import Columns
from giblet_hpc.splits import Block, Fold
from giblet_hpc.training.feed import RunArrays, StudyArrays
from giblet_hpc.training.world import World

ALONE = World(0, 0, 1, torch.device("cpu"))
DEMO = Path(__file__).parents[2] / "configs" / "demo.yaml"
TRS = 500
FOLD = Fold("", (Block("a", 0, 420),), (Block("a", 430, TRS),), (Block("b", 0, TRS),))
RIDGE = (
    "evaluate.ridge={components: 6, smooth_seconds: [0], penalties: voxel, bands: voxel, draws: 6}"
)


def config_of(folder: Path, demo_config: str, *more: str) -> RunConfig:
    features = "features={one: {files: 'x_{run}.npy'}, other: {files: 'y_{run}.npy'}}"
    return io.load(Path(demo_config), [features, RIDGE, *more])


def planted(subjects: int = 2) -> StudyArrays:
    """Voxels 0-3 follow band `one`, 4-7 band `other`, 8-9 nothing; six seconds later."""
    random, runs = np.random.default_rng(0), {}
    weights = random.standard_normal((2, 6, 4))
    for name in "ab":
        features = random.standard_normal((2, TRS, 6))
        signal = np.concatenate([f @ w for f, w in zip(features, weights, strict=True)], 1)
        signal = np.concatenate([signal / signal.std(0), np.zeros((TRS, 2))], 1)
        scans = np.roll(signal, 4, axis=0) + 0.7 * random.standard_normal((subjects, TRS, 10))
        stimulus = {band: f.astype(np.float32) for band, f in zip(BANDS, features, strict=True)}
        runs[name] = RunArrays(stimulus, scans.astype(np.float32), np.ones((subjects, TRS), bool))
    return StudyArrays(runs, tuple("stu"[:subjects]), np.ones(10, bool), Columns(10), {})


BANDS = ("one", "other")


def made(config: RunConfig, study: StudyArrays, world: World = ALONE) -> baselines.Baselines:
    kinds = {}
    for name in BANDS:
        kind = Own(name, OwnFeatures(files="x_{run}.npy"))
        found = kind.fit([study.runs["a"].stimulus[name][:420]], None)
        kinds[name] = kind.fitted((6,), found)
    return baselines.Baselines(config, study, kinds, FOLD, world=world)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("linear")
    made(config_of(folder, str(DEMO)), planted()).write(folder)
    return folder


def maps_of(folder: Path) -> dict[str, np.ndarray]:
    names = [file.stem for file in folder.glob("*.npy")]
    predictions = {name: np.load(folder / f"{name}.npy") for name in names}
    return scores.score_maps(planted(), FOLD.test, predictions, ALONE)


def test_each_region_goes_to_its_modality(written: Path) -> None:
    maps, product = maps_of(written), np.load(written / "product.npz")
    whole, r2 = maps["ridge_r"].mean(0), maps["ridge_r2"].mean(0)
    assert whole[:8].min() > 0.5
    for number, (own, other) in enumerate([BANDS, BANDS[::-1]]):
        voxels = slice(4 * number, 4 * number + 4)
        without = maps[f"without-{own}_r"].mean(0)[voxels]
        assert (whole[voxels] - without).min() > 0.4, "nothing else explains it"
        assert np.abs(whole - maps[f"without-{other}_r"].mean(0))[voxels].max() < 0.05
        parts = product[own].mean(0)[voxels]
        assert (parts > 0.9 * r2[voxels]).all()
    total = sum(product[band] for band in BANDS)
    np.testing.assert_allclose(total[:, :8], maps["ridge_r2"][:, :8], atol=0.03)


def test_time_alone_predicts_nothing(written: Path) -> None:
    assert np.abs(maps_of(written)["time_r"]).mean() < 0.2


def test_what_is_there_is_not_made_again(written: Path, demo_config: str) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in written.iterdir()}
    models = made(config_of(written, demo_config), planted())
    models.write(written)
    assert {file.name: file.stat().st_mtime_ns for file in written.iterdir()} == before
    assert models.prior.facts() == read_json(written / "ridge.json")
    assert not list(written.glob("*rank*"))


def test_an_interruption_loses_nothing(tmp_path: Path, demo_config: str) -> None:
    """Whatever file was the last: also with more ranks before, whose parts are left."""
    models = made(config_of(tmp_path, demo_config), planted())
    models.write(tmp_path)
    names = {file.name for file in tmp_path.iterdir()}
    expected = np.load(tmp_path / "ridge.npy")
    for name in ("ridge.npy", "without-one.npy"):
        (tmp_path / name).unlink()
        (tmp_path / f".{Path(name).stem}-rank-3.npy").touch()
    (tmp_path / "product.npz").unlink()
    models.write(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == names
    np.testing.assert_array_equal(np.load(tmp_path / "ridge.npy"), expected)


def test_a_subject_with_few_scans_holds_nobody_up(tmp_path: Path, demo_config: str) -> None:
    study = planted(3)
    study.runs["a"].valid[1, 12:] = False
    more = "evaluate.ridge.smooth_seconds=[0,4]"
    made(config_of(tmp_path, demo_config, more), study).write(tmp_path)
    ridge = np.load(tmp_path / "ridge.npy")
    assert np.isnan(ridge[1]).all() and np.isfinite(ridge[[0, 2]]).all()
    assert read_json(tmp_path / "ridge.json")["smooth_seconds"] == 0, "by the others"
    whole = ScoredFold(config_of(tmp_path, demo_config), study, study, FOLD, tmp_path, ALONE)
    assert whole.scored() == [0, 2]
    products = whole._products([0, 2])
    assert np.isnan(products["product-one"][1]).all()


def test_a_modality_may_have_one_column() -> None:
    study = planted()
    for run in study.runs.values():
        run.stimulus["one"] = run.stimulus["one"][:, :1]  # type: ignore[index]
    kind = Own("one", OwnFeatures(files="x_{run}.npy"))
    kind = kind.fitted((1,), kind.fit([study.runs["a"].stimulus["one"][:420]], None))
    found = principal_features(study, {"one": kind}, FOLD.train, components=100)
    assert found["a"]["one"].shape == (TRS, 1)
    assert found["a"]["one"][:420].std() == pytest.approx(1, abs=0.01)


def test_models_that_are_not_asked_for(tmp_path: Path, demo_config: str) -> None:
    config = config_of(tmp_path, demo_config, "evaluate.controls=false",
                       "evaluate.ridge.partition=false")  # fmt: skip
    assert made(config, planted()).names() == []
    assert set(made(config_of(tmp_path, demo_config), planted()).names()) == {
        "without-one", "without-other", "time",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["equal", "one"])
def test_ranks_agree_on_what_voxels_share(
    tmp_path: Path, demo_config: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank's voxels get what they get beside all others: penalty and weights come from all."""
    options = f"evaluate.ridge={{components: 6, smooth_seconds: [4], penalties: one, bands: {kind}, draws: 4}}"
    config, study = config_of(tmp_path, demo_config, options), planted()
    models = made(config, study)
    design = models._design("ridge", models._known_prior(tmp_path / "ridge.json"))
    whole = [row for row, _ in models._models(design, models.used)]
    for rank in range(3):
        other = made(config, study, World(rank, rank, 3, ALONE.device, 3))
        share = blocks.voxel_share(10, World(rank, rank, 3, ALONE.device, 3))
        for row, (own, _) in zip(whole, other._models(design, other.used), strict=True):
            np.testing.assert_allclose(own, row[:, share], atol=1e-5)


def test_the_scan_before() -> None:
    study = planted()
    previous = PreviousScan(study, [Block("a", 10, 20), Block("b", 0, 5)])
    found = previous[1, :, slice(2, 4)]
    first, second = (study.runs[name].bold[1, :, 2:4] for name in "ab")
    expected = np.concatenate([first[10:11], first[10:19], second[:1], second[:4]])
    np.testing.assert_array_equal(found, expected)
    assert len(previous) == 2


def test_blocks_apart_are_predicted_with_the_penalty_of_the_whole_fit(
    tmp_path: Path, demo_config: str
) -> None:
    options = "evaluate.ridge={components: 6, smooth_seconds: [0], penalties: one, bands: equal}"
    config, study = config_of(tmp_path, demo_config, options), planted(1)
    models = made(config, study)
    models.write(tmp_path)
    # As for an inner fold: a linear baseline of its own, which has chosen nothing.
    inner = made(config, study)
    train, test = [Block("a", 0, 90)], [Block("a", 120, 300)]
    (tmp_path / "apart").mkdir()
    inner.write_apart(tmp_path / "apart", models, train, test)
    found = np.load(tmp_path / "apart" / "ridge.npy")[0]
    bands = models.mixed()[0]
    scans = study.runs["a"].bold[0]
    whole = np.concatenate([scans[:420], scans[430:TRS]])
    weights, penalty = shared_settings(
        bands, whole, config.evaluate.ridge, purge=models.purge, prior=models.prior
    )
    assert weights.tolist() == [0.5, 0.5]
    x = np.concatenate(bands, axis=1) * 0.5**0.5
    # A block knows nothing of what was before it.
    held_out = np.concatenate(list(models._lagged(test).values()), axis=1) * 0.5**0.5
    expected = SklearnRidge(penalty).fit(x[:90], scans[:90]).predict(held_out)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    models._shared[0] = (weights, 1e4)
    (tmp_path / "apart" / "ridge.npy").unlink()
    inner.write_apart(tmp_path / "apart", models, train, test)
    found = np.load(tmp_path / "apart" / "ridge.npy")[0]
    np.testing.assert_allclose(
        found, SklearnRidge(1e4).fit(x[:90], scans[:90]).predict(held_out), atol=2e-3
    )
