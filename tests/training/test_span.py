"""The first layer in the span of the training TRs: the same map, a few of the weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from giblet_hpc.config.io import load
from giblet_hpc.config.model import Model
from giblet_hpc.errors import DataError
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.models.dense import InSpan
from giblet_hpc.plans.hardware import GPUS, LINKS, Place
from giblet_hpc.scans.tables import Columns
from giblet_hpc.splits import Block
from giblet_hpc.training import planner, span
from giblet_hpc.training.expected_size import expected_size
from giblet_hpc.training.feed import RunArrays, StudyArrays
from giblet_hpc.training.predictor import make_predictor
from giblet_hpc.training.statistics import TrainingStatistics, fit
from giblet_hpc.training.strategy import DataParallel
from giblet_hpc.training.world import World

CPU = torch.device("cpu")
CONFIGS = Path(__file__).parents[2] / "configs"
BLOCKS = [Block("run1", 3, 20), Block("run1", 30, 53)]


def study(dtype: type = np.uint8) -> StudyArrays:
    random = np.random.default_rng(0)
    films = random.integers(0, 256, (60, 2, 4, 5, 3)).astype(dtype)
    run = RunArrays({"video": films}, np.zeros((1, 60, 2), np.float32), np.ones((1, 60), bool))
    return StudyArrays({"run1": run}, ("x",), np.ones(2, bool), Columns(2), {})


def training_rows() -> np.ndarray:
    films = study().runs["run1"].stimulus["video"][:].reshape(60, -1) / 255
    return np.concatenate([films[block.start : block.stop] for block in BLOCKS])


def test_the_basis_is_that_of_numpys_svd() -> None:
    basis = span.fit_span(study(), BLOCKS, "video", components=12, device=CPU)
    assert basis.shape == (120, 12)
    found = basis.astype(float) / 120**0.5
    _, _, rows = np.linalg.svd(training_rows(), full_matrices=False)
    np.testing.assert_allclose(np.abs(np.sum(found * rows[:12].T, 0)), 1, atol=2e-3)
    np.testing.assert_allclose(found.T @ found, np.eye(12), atol=2e-3)


def test_with_all_components_training_rows_lose_nothing() -> None:
    basis = span.fit_span(study(), BLOCKS, "video", components=500, device=CPU)
    assert basis.shape == (120, 40), "as many as training TRs"
    layer, rows = InSpan(basis, 7), torch.from_numpy(training_rows()).float()
    whole = layer.weight @ layer.basis.T
    torch.testing.assert_close(layer(rows), rows @ whole.T + layer.bias, rtol=1e-3, atol=1e-3)
    back = rows @ layer.basis @ layer.basis.T
    torch.testing.assert_close(back, rows, rtol=0, atol=5e-3)


def test_many_trs_are_thinned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span, "MOST_TRS", 10)
    assert span.fit_span(study(), BLOCKS, "video", components=500, device=CPU).shape == (120, 10)


def test_a_black_film_is_refused() -> None:
    dark = study()
    dark.runs["run1"].stimulus["video"][:] = 0
    with pytest.raises(DataError, match="video of all training TRs is black"):
        span.fit_span(dark, BLOCKS, "video", components=3, device=CPU)


def test_the_dense_model_sees_it_and_its_checkpoints_do_not_hold_it() -> None:
    settings = ["model.kind=dense", "model.width=0.01", "model.span=6", "train.window_trs=1",
                "model.bottleneck=8", "train.batch_windows=8"]  # fmt: skip
    config = load(CONFIGS / "demo.yaml", settings)
    random = np.random.default_rng(0)
    whole = study()
    films = whole.runs["run1"].stimulus["video"]
    stimulus = {
        "video": films,
        "audio": random.integers(0, 1024, (60, 2, 6)).astype(np.int16),
        "text": random.random((60, 40)).astype(np.float32),
    }
    books = random.random((2, 1024, 128)).astype(np.float32)
    bold = random.standard_normal((1, 60, 2)).astype(np.float32)
    run = RunArrays(stimulus, bold, np.ones((1, 60), bool))
    whole = StudyArrays({"run1": run}, ("x",), whole.mask, whole.space, {"audio": books})
    alone, modalities = World(0, 0, 1, CPU), modalities_of(config.features)
    plain = fit(modalities, whole, BLOCKS, alone)
    found = span.with_span(plain, modalities, whole, BLOCKS, components=6, device=CPU)
    assert isinstance(found, TrainingStatistics)
    predictor = make_predictor(config, whole, found, DataParallel(alone))
    layer = next(m for m in predictor.model.modules() if isinstance(m, InSpan))
    np.testing.assert_allclose(
        layer.basis.numpy(), found.values["video.span"].astype(np.float32) * 120**-0.5, rtol=1e-6
    )
    assert not any("basis" in name for name in predictor.model.state_dict())
    assert any(name.endswith("0.weight") for name in predictor.model.state_dict())


def test_it_halves_the_originals_weights() -> None:
    place = Place(GPUS["a6000"], 8, 1, LINKS["pcie"], LINKS["infiniband"])
    config = load(CONFIGS / "sherlock_dense.yaml", ["model.span=756"])
    size = expected_size(config, voxels=83_138, fps=25.0)
    weights = planner.estimates(config, size, place)["ddp"].weights
    assert weights == 3_500_188_290 - 4096 * (10 * 43_200 - 756)
    assert 1.73e9 < weights < 1.74e9


def test_it_is_for_the_dense_model() -> None:
    with pytest.raises(ValidationError, match="span is for kind: dense"):
        Model(span=3)
