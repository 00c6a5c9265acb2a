from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from giblet_hpc.config.model import TemporalModel
from giblet_hpc.errors import ConfigError
from giblet_hpc.models.dense import DenseModel
from giblet_hpc.models.shapes import Batch, Shapes
from giblet_hpc.models.temporal import TemporalNet

OPTIONS = TemporalModel(
    frame_channels=4, width=12, code_width=6, rank=5, subject_rank=2, fir_trs=4, dropout=0.0
)
FULL = Shapes((3, 20, 36), (2, 10), 1024, 7, 3, 11)
FRAMES = torch.tensor([0, 4, 9])


def batch_of(shapes: Shapes, windows: int = 2, trs: int = 9, target: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(0)
    stimulus = {}
    if shapes.video:
        size = (windows, trs, *shapes.video, 3)
        stimulus["video"] = torch.randint(0, 255, size, generator=generator, dtype=torch.uint8)
    if shapes.audio and shapes.codes:
        size = (windows, trs, *shapes.audio)
        stimulus["audio"] = torch.randint(0, 1024, size, generator=generator, dtype=torch.int16)
    elif shapes.audio:
        stimulus["audio"] = torch.randn((windows, trs, *shapes.audio), generator=generator)
    if shapes.text:
        stimulus["text"] = torch.randn((windows, trs, shapes.text), generator=generator)
    return Batch(
        stimulus,
        torch.ones(windows, trs, dtype=torch.bool),
        torch.randn((windows, target, shapes.subjects, shapes.voxels), generator=generator),
        torch.ones(windows, target, shapes.subjects, dtype=torch.bool),
    )


def build(shapes: Shapes, options: TemporalModel = OPTIONS) -> TemporalNet:
    torch.manual_seed(0)
    model = TemporalNet(shapes, bottleneck=8, options=options, tr=1.5)
    for encoder in model.encoders.values():
        if hasattr(encoder, "codebooks"):
            encoder.codebooks.normal_()
    return model.eval()


def test_dense_counts_are_those_on_record() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "giblet_hpc.models.dense"],
        capture_output=True,
        text=True,
        check=True,
    )
    for count in ("3,500,188,290", "8,359,824,355", "3,235,947,138", "8,095,583,203"):
        assert count in done.stdout
    assert done.stdout.count("264,241,152") == 2


def test_dense_forward_and_its_batch_limit() -> None:
    with torch.device("meta"):
        model = DenseModel(Shapes((2, 6, 8), (8, 112), 1024, 3072, 1, 50)).train()
        batch = batch_of_meta(16)
        output = model(batch, FRAMES)
    assert output.bold.shape == (16, 1, 1, 50)
    assert output.reconstruction["video"].shape == (16, 1, 1, 6, 8, 3)
    assert output.reconstruction["audio"].shape == (16, 1, 8, 112)
    with torch.device("meta"), pytest.raises(ConfigError, match="BatchNorm sees 4 TRs"):
        model(batch_of_meta(4), FRAMES)
    with pytest.raises(ConfigError, match="needs video, audio codes and text"):
        DenseModel(Shapes((2, 6, 8), None, 0, 3072, 1, 50))


def batch_of_meta(count: int) -> Batch:
    return Batch(
        {
            "video": torch.zeros(count, 1, 2, 6, 8, 3, dtype=torch.uint8),
            "audio": torch.zeros(count, 1, 8, 112, dtype=torch.int16),
            "text": torch.zeros(count, 1, 3072),
        },
        torch.ones(count, 1, dtype=torch.bool),
        torch.zeros(count, 1, 1, 50),
        torch.ones(count, 1, 1, dtype=torch.bool),
    )


@pytest.mark.parametrize("modalities", ["v", "a", "t", "va", "vt", "at", "vat", "m", "vmt"])
def test_any_modalities(modalities: str) -> None:
    audio = (2, 10) if set(modalities) & set("am") else None
    shapes = Shapes(
        FULL.video if "v" in modalities else None,
        audio,
        1024 if "a" in modalities else 0,
        7 if "t" in modalities else None,
        3,
        11,
    )
    batch = batch_of(shapes)
    output = build(shapes)(batch, FRAMES)
    assert output.bold.shape == batch.bold.shape
    assert output.bottleneck.shape == (2, 9, 8)
    assert set(output.reconstruction) == set(shapes.modalities)
    if "v" in modalities:
        assert output.reconstruction["video"].shape == (2, 6, 3, 20, 36, 3)
    if "a" in modalities:
        assert output.reconstruction["audio"].shape == (2, 6, 3, 2, 1024)
    if "m" in modalities:
        assert output.reconstruction["audio"].shape == (2, 6, 2, 10)


@pytest.mark.parametrize("layers", [0, 2])
def test_predictions_are_causal_and_remember_no_longer_than_stated(layers: int) -> None:
    shapes = Shapes(None, None, 0, 7, 2, 11)
    options = OPTIONS.model_copy(update={"context_layers": layers})
    model = build(shapes, options)
    for layer in model.context.layers:
        torch.nn.init.normal_(layer.weight)
    batch = batch_of(shapes, windows=1, trs=30, target=30)
    before = model(batch, FRAMES).bold[0]
    changed = batch.stimulus["text"].clone()
    changed[0, 12] += 1
    after = model(batch._replace(stimulus={"text": changed}), FRAMES).bold[0]
    moved = (after - before).abs().amax(dim=(1, 2)) > 1e-7
    memory = OPTIONS.fir_trs - 1 + sum(2 * 2**layer for layer in range(layers))
    assert not moved[:12].any()
    assert moved[12 : 12 + memory + 1].all()
    assert not moved[12 + memory + 1 :].any()


def test_padding_does_not_leak_into_predictions() -> None:
    shapes = Shapes(None, None, 0, 7, 2, 11)
    model = build(shapes, OPTIONS.model_copy(update={"context_layers": 1}))
    batch = batch_of(shapes, windows=1)
    inside = batch.inside.clone()
    inside[:, :3] = False
    outputs = []
    for filler in (0.0, 100.0):
        text = batch.stimulus["text"].clone()
        text[:, :3] = filler
        outputs.append(model(batch._replace(stimulus={"text": text}, inside=inside), FRAMES).bold)
    torch.testing.assert_close(outputs[0], outputs[1])


def test_subjects_share_components_and_differ_by_their_own() -> None:
    model = build(Shapes(None, None, 0, 7, 3, 11))
    batch = batch_of(Shapes(None, None, 0, 7, 3, 11))
    bold = model(batch, FRAMES).bold
    torch.testing.assert_close(bold[:, :, 0], bold[:, :, 2])
    torch.nn.init.normal_(model.voxels.own)
    bold = model(batch, FRAMES).bold
    assert (bold[:, :, 0] - bold[:, :, 2]).abs().max() > 1e-3


def test_map_penalty_is_the_norm_of_the_composed_map() -> None:
    shapes = Shapes(None, None, 0, 7, 1, 11)
    model = build(shapes)
    batch = batch_of(shapes, windows=1, trs=8, target=8)
    zero = {"text": torch.zeros(1, 8, 7)}
    base = model(batch._replace(stimulus=zero), FRAMES).bold
    total = 0.0
    for feature in range(7):
        text = torch.zeros(1, 8, 7)
        text[0, 0, feature] = 1
        response = model(batch._replace(stimulus={"text": text}), FRAMES).bold - base
        total += float(response.detach().square().sum()) / 11
    assert float(model.map_penalty().detach()) == pytest.approx(total, rel=1e-4)


def test_modality_dropout_keeps_at_least_one() -> None:
    model = build(FULL, OPTIONS.model_copy(update={"modality_dropout": 0.9})).train()
    encoded = [torch.ones(500, 1, 1) for _ in range(3)]
    kept = torch.cat(model._drop_modalities(encoded), dim=2)[:, 0]
    assert kept.sum(1).min() == 1
    assert 0.05 < kept.mean() < 0.6
