from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from giblet_hpc.config import io
from giblet_hpc.config.model import TemporalModel
from giblet_hpc.errors import ConfigError
from giblet_hpc.modalities.base import Modality
from giblet_hpc.models.dense import DenseModel, stack, with_layer_norm
from giblet_hpc.models.shapes import Batch, Shapes
from giblet_hpc.models.temporal import TemporalNet
from giblet_hpc.training.predictor import build_model
from tests.fitted import batch_of, modalities, shapes_of

OPTIONS = TemporalModel(
    frame_channels=4, width=12, code_width=6, rank=5, subject_rank=2, fir_seconds=6, dropout=0.0
)
POSITIONS = {"audio": torch.tensor([0, 4, 9])}


def build(
    coders: dict[str, Modality], options: TemporalModel = OPTIONS, **sizes: int
) -> TemporalNet:
    torch.manual_seed(0)
    shapes = shapes_of(coders, **sizes)
    return TemporalNet(shapes, coders, bottleneck=8, options=options, tr=1.5).eval()


def text_only(**sizes: int) -> tuple[dict[str, Modality], Shapes]:
    coders = modalities("t")
    return coders, shapes_of(coders, **sizes)


def test_dense_counts_are_those_on_record() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "giblet_hpc.training.describe"],
        capture_output=True,
        text=True,
        check=True,
    )
    for count in ("3,500,188,290", "8,359,824,355", "3,235,947,138", "8,095,583,203"):
        assert count in done.stdout
    assert done.stdout.count("264,241,152") == 2


DENSE = {"video": (2, 6, 8, 3), "audio": (8, 112), "text": (3072,)}


def test_dense_forward() -> None:
    coders = modalities("vat", DENSE)
    shapes = shapes_of(coders, subjects=1, voxels=50)
    with torch.device("meta"):
        model = DenseModel(shapes, coders).train()
        stimulus = {
            "video": torch.zeros(16, 1, 2, 6, 8, 3, dtype=torch.uint8),
            "audio": torch.zeros(16, 1, 8, 112, dtype=torch.int16),
            "text": torch.zeros(16, 1, 3072),
        }
        there = torch.ones(16, 1, dtype=torch.bool)
        output = model(Batch(stimulus, there, torch.zeros(16, 1, 1, 50), there[..., None]), {})
    assert output.bold.shape == (16, 1, 1, 50)
    assert output.reconstruction["video"].shape == (16, 1, 1, 6, 8, 3)
    assert output.reconstruction["audio"].shape == (16, 1, 8, 112)


def test_with_layer_norm_a_tr_does_not_depend_on_the_others(demo_config: str) -> None:
    """As in validation, while training; BatchNorm does depend on them."""
    values = torch.randn(9, 6)
    for norm, alike in ((with_layer_norm, True), (lambda model: model, False)):
        torch.manual_seed(0)
        layers = norm(stack([6, 5, 4], [0.0, 0.0])).train()
        assert torch.allclose(layers(values)[:3], layers(values[:3]), atol=1e-6) == alike
    config = io.load(Path(demo_config), ["model.kind=dense", "model.norm=layer",
                                         "train.window_trs=1"])  # fmt: skip
    coders = modalities("vat", DENSE)
    with torch.device("meta"):
        model = build_model(config, shapes_of(coders, subjects=1, voxels=50), coders)
        original = DenseModel(
            shapes_of(coders, subjects=1, voxels=50), coders, bottleneck=config.model.bottleneck
        )
    kinds = [type(layer) for layer in model.modules()]
    assert nn.BatchNorm1d not in kinds
    assert nn.LayerNorm in kinds
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == sum(parameter.numel() for parameter in original.parameters())
    with pytest.raises(ConfigError, match="norm: layer is for kind: dense"):
        io.load(Path(demo_config), ["model.norm=layer"])


@pytest.mark.parametrize("letters", ["vt", "vmt", "t"])
def test_dense_needs_what_the_original_had(letters: str) -> None:
    coders = modalities(letters, DENSE)
    with pytest.raises(ConfigError, match="needs video, audio codes and text"):
        DenseModel(shapes_of(coders), coders)


@pytest.mark.parametrize("letters", ["v", "a", "t", "va", "vt", "at", "vat", "m", "vmt"])
def test_any_modalities(letters: str) -> None:
    coders = modalities(letters)
    batch = batch_of(coders, shapes_of(coders))
    output = build(coders)(batch, POSITIONS if "a" in letters else {})
    assert output.bold.shape == batch.bold.shape
    assert output.bottleneck.shape == (2, 9, 8)
    assert set(output.reconstruction) == set(coders)
    if "v" in letters:
        assert output.reconstruction["video"].shape == (2, 6, 3, 20, 36, 3)
    if "a" in letters:
        assert output.reconstruction["audio"].shape == (2, 6, 3, 2, 1024)
    if "m" in letters:
        assert output.reconstruction["audio"].shape == (2, 6, 2, 10)


@pytest.mark.parametrize("layers", [0, 2])
def test_predictions_are_causal_and_remember_no_longer_than_stated(layers: int) -> None:
    coders, shapes = text_only(subjects=2)
    options = OPTIONS.model_copy(update={"context_layers": layers})
    model = build(coders, options, subjects=2)
    for layer in model.context.layers:
        torch.nn.init.normal_(layer.weight)
    batch = batch_of(coders, shapes, windows=1, trs=30, target=30)
    before = model(batch, {}).bold[0]
    changed = batch.stimulus["text"].clone()
    changed[0, 12] += 1
    after = model(batch._replace(stimulus={"text": changed}), {}).bold[0]
    moved = (after - before).abs().amax(dim=(1, 2)) > 1e-7
    memory = OPTIONS.fir_trs(1.5) - 1 + sum(2 * 2**layer for layer in range(layers))
    assert not moved[:12].any()
    assert moved[12 : 12 + memory + 1].all()
    assert not moved[12 + memory + 1 :].any()


def test_padding_does_not_leak_into_predictions() -> None:
    coders, shapes = text_only(subjects=2)
    model = build(coders, OPTIONS.model_copy(update={"context_layers": 1}), subjects=2)
    batch = batch_of(coders, shapes, windows=1)
    inside = batch.inside.clone()
    inside[:, :3] = False
    outputs = []
    for filler in (0.0, 100.0):
        text = batch.stimulus["text"].clone()
        text[:, :3] = filler
        outputs.append(model(batch._replace(stimulus={"text": text}, inside=inside), {}).bold)
    torch.testing.assert_close(outputs[0], outputs[1])


def test_subjects_share_components_and_differ_by_their_own() -> None:
    coders, shapes = text_only()
    model = build(coders)
    batch = batch_of(coders, shapes)
    bold = model(batch, {}).bold
    torch.testing.assert_close(bold[:, :, 0], bold[:, :, 2])
    torch.nn.init.normal_(model.voxels.own)
    bold = model(batch, {}).bold
    assert (bold[:, :, 0] - bold[:, :, 2]).abs().max() > 1e-3


def test_map_penalty_is_the_norm_of_the_composed_map() -> None:
    coders, shapes = text_only(subjects=1)
    model = build(coders, subjects=1)
    batch = batch_of(coders, shapes, windows=1, trs=8, target=8)
    zero = {"text": torch.zeros(1, 8, 7)}
    base = model(batch._replace(stimulus=zero), {}).bold
    total = 0.0
    for feature in range(7):
        text = torch.zeros(1, 8, 7)
        text[0, 0, feature] = 1
        response = model(batch._replace(stimulus={"text": text}), {}).bold - base
        total += float(response.detach().square().sum()) / 11
    assert float(model.map_penalty().detach()) == pytest.approx(total, rel=1e-4)


def test_modality_dropout_keeps_at_least_one() -> None:
    model = build(modalities("vat"), OPTIONS.model_copy(update={"modality_dropout": 0.9})).train()
    encoded = [torch.ones(500, 1, 1) for _ in range(3)]
    kept = torch.cat(model._drop_modalities(encoded), dim=2)[:, 0]
    assert kept.sum(1).min() == 1
    assert 0.05 < kept.mean() < 0.6
