"""Gradients of a small network: against autograd by hand, and with faults planted in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from giblet_hpc.config import io
from giblet_hpc.diagnosis.gradients import Gradients
from giblet_hpc.findings import Finding
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.training import statistics
from giblet_hpc.training.losses import Losses
from giblet_hpc.training.predictor import Predictor, make_predictor
from giblet_hpc.training.strategy import DataParallel
from giblet_hpc.training.windows import Window
from giblet_hpc.training.world import World
from tests.conftest import TINY
from tests.training.test_loop import FOLD, study

CONFIG = Path(__file__).parents[2] / "configs" / "demo.yaml"
WINDOWS = [[Window(FOLD.train[0], 0), Window(FOLD.train[0], 8)],
           [Window(FOLD.train[0], 16), Window(FOLD.train[0], 24)]]  # fmt: skip


def made(*settings: str) -> tuple[Predictor, Losses]:
    options = [*TINY, "features.audio=null", "features.text=null", *settings]
    config = io.load(CONFIG, options)
    alone = World(0, 0, 1, torch.device("cpu"))
    found = statistics.fit(modalities_of(config.features), study(), FOLD.train, alone)
    predictor = make_predictor(config, study(), found, DataParallel(alone))
    return predictor, Losses(config.loss, predictor.modalities, found.bold_variance)


def levels(measured: Gradients) -> dict[str, Finding]:
    return {one.check: one for one in measured.findings() if one.level != "ok"}


def test_figures_are_autograds() -> None:
    predictor, losses = made("model.temporal.dropout=0")
    facts = Gradients(predictor, losses, WINDOWS[:1], step=3).facts()
    batch, where = predictor.reader(WINDOWS[0]), predictor.positions(0)
    model: Any = predictor.model
    output = model(batch, where)
    parts = losses.components(output, batch, where)
    scans, picture = (
        torch.autograd.grad(parts[name], output.bottleneck, retain_graph=True)[0].flatten()
        for name in ("fmri", "video")
    )
    assert facts["norms"]["fmri"] == pytest.approx(float(scans.norm()), rel=1e-4)
    assert facts["components"]["video"] == pytest.approx(parts["video"].item(), rel=1e-4)
    cosine = float(torch.nn.functional.cosine_similarity(scans, picture, dim=0))
    assert facts["cosines"]["fmri and video"] == pytest.approx(cosine, abs=1e-4)
    sum(parts.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
    squeeze = torch.cat([model.squeeze.weight.grad.flatten(), model.squeeze.bias.grad])
    expected = float(squeeze.square().mean().sqrt())
    assert facts["layers"]["squeeze"] == pytest.approx(expected, rel=1e-3)
    assert (facts["step"], facts["batches"]) == (3, 1)


@pytest.mark.parametrize("seed", range(5))
def test_a_sound_network(seed: int) -> None:
    predictor, losses = made(f"train.seed={seed}")
    assert levels(Gradients(predictor, losses, WINDOWS, step=0)) == {}


def test_scans_that_do_not_count() -> None:
    found = levels(Gradients(*made("loss.reconstruction_weight=1e6"), WINDOWS, step=0))
    assert "the scans do not count" in found["components"].seen
    assert found["components"].level == "fail"


def test_a_layer_that_nothing_reaches() -> None:
    predictor, losses = made()
    model: Any = predictor.model
    with torch.no_grad():
        model.voxels.project.weight.zero_()
        model.voxels.project.bias.zero_()
        model.voxels.shared.weight.zero_()
    found = levels(Gradients(predictor, losses, WINDOWS, step=0))
    assert found["layer voxels.project"].seen == "no gradient reaches it"


def test_layers_that_vanish_and_explode() -> None:
    predictor, losses = made()
    model: Any = predictor.model
    with torch.no_grad():
        model.decoders.video.layers[6].weight.mul_(1e-9)
    found = levels(Gradients(predictor, losses, WINDOWS, step=0))
    assert "it vanishes" in found["layer decoders.video.whole"].seen
    measured = Gradients(*made(), WINDOWS, step=0)
    measured._squares["squeeze"] *= 1e12
    assert "it explodes" in levels(measured)["layer squeeze"].seen


def test_weights_that_are_not_numbers() -> None:
    predictor, losses = made()
    model: Any = predictor.model
    with torch.no_grad():
        model.squeeze.bias.fill_(float("nan"))
    assert levels(Gradients(predictor, losses, WINDOWS, step=0))["components"].level == "fail"
