from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr

from giblet_hpc.config.features import AudioFeatures, Features, TextFeatures, VideoFeatures
from giblet_hpc.config.loss import Loss
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.models.shapes import Batch, Output
from giblet_hpc.training.losses import Losses, pearson_over_time

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("normalise", ["variance", "std", "none"])
def test_predicting_the_training_mean_costs_one(normalise: str) -> None:
    """At variance normalisation every component is 1, whatever its scale."""
    trs = 40
    video = RANDOM.integers(0, 255, (trs, 2, 3, 4, 3)).astype(np.uint8)
    codes = RANDOM.integers(0, 1024, (trs, 2, 5)).astype(np.int16)
    text = (50 * RANDOM.standard_normal((trs, 6))).astype(np.float32)
    bold = (7 * RANDOM.standard_normal((trs, 1, 8))).astype(np.float32)
    rows = {"video": video, "audio": codes, "text": text}
    sections = {
        "video": VideoFeatures(), "audio": AudioFeatures(codec="untrained"), "text": TextFeatures()
    }  # fmt: skip
    books = RANDOM.standard_normal((2, 1024, 4)).astype(np.float32)
    bound = {
        name: modality.fitted(
            rows[name].shape[1:], modality.fit([rows[name]], books if name == "audio" else None)
        )
        for name, modality in modalities_of(Features(**sections)).items()
    }
    batch = Batch(
        {name: torch.from_numpy(values)[None] for name, values in rows.items()},
        torch.ones(1, trs, dtype=torch.bool),
        torch.from_numpy(bold)[None],
        torch.ones(1, trs, 1, dtype=torch.bool),
    )
    predicted = {
        "video": bound["video"].estimate("mean").expand(1, trs, 2, 3, 4, 3),
        "audio": bound["audio"].estimate("log_probability").expand(1, trs, 5, 2, 1024),
        "text": bound["text"].estimate("mean").expand(1, trs, 6),
    }
    mean = batch.bold.mean(1, keepdim=True).expand_as(batch.bold)
    output = Output(mean, torch.zeros(1), torch.zeros(()), predicted)
    options = Loss(normalise=normalise, reconstruction_weight=1.0)
    losses = Losses(options, bound, float(bold.var(axis=0).mean()))
    parts = losses.components(output, batch, {"audio": torch.arange(5)})
    if normalise == "variance":
        for name, value in parts.items():
            assert float(value) == pytest.approx(1.0, rel=2e-3), name
    if normalise == "std":
        assert float(parts["fmri"]) == pytest.approx(7.0, rel=0.2)
    if normalise == "none":
        assert float(parts["fmri"]) == pytest.approx(49.0, rel=0.3)
        assert float(parts["text"]) == pytest.approx(2500.0, rel=0.3)


def test_missing_scans_do_not_count() -> None:
    valid = torch.ones(1, 6, 2, dtype=torch.bool)
    valid[0, 4:, 1] = False
    bold = torch.randn(1, 6, 2, 3)
    made = Output(torch.zeros(1, 6, 2, 3), torch.zeros(1), torch.zeros(()), {})
    for kind in ("mse", "mae", "correlation"):
        losses = Losses(Loss(fmri=kind, correlation_weight=0.5), {}, 1.0)
        values = []
        for filler in (0.0, 9.0):
            filled = torch.where(valid[..., None], bold, torch.tensor(filler))
            batch = Batch({}, torch.ones(1, 6, dtype=torch.bool), filled, valid)
            values.append(float(losses.components(made, batch, {})["fmri"]))
        assert values[0] == pytest.approx(values[1]), kind


def test_torch_correlation_equals_scipy() -> None:
    a, b = torch.randn(30, 2, 4), torch.randn(30, 2, 4)
    valid = torch.rand(30, 2) > 0.3
    r = pearson_over_time(a, b, valid)
    for s in range(2):
        for v in range(4):
            there = valid[:, s]
            expected = pearsonr(a[there, s, v].numpy(), b[there, s, v].numpy()).statistic
            assert float(r[s, v]) == pytest.approx(expected, abs=1e-4)
