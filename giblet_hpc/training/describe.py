"""The original's layers, shapes and counts: `python -m giblet_hpc.training.describe`."""

from __future__ import annotations

import sys

import torch
from torch import nn

from giblet_hpc.config.features import AudioFeatures, Features, TextFeatures, VideoFeatures
from giblet_hpc.modalities.base import Modality
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.models.dense import DenseModel, SumOverFrames
from giblet_hpc.models.shapes import Shapes

SHAPES: tuple[tuple[int, ...], ...] = ((90, 160, 3), (8, 112), (3072,))
FEATURES = Features(video=VideoFeatures(), audio=AudioFeatures(), text=TextFeatures())


def original(
    frames: int, voxels: int, *, width: float = 1.0
) -> tuple[DenseModel, dict[str, Modality]]:
    """Return the original's network and its modalities, on the default device.

    Parameters
    ----------
    frames : int
        Frames of a TR.
    voxels : int
    width : float
        What the hidden layers' widths are multiplied by.
    """
    shapes = [(frames, *SHAPES[0]), *SHAPES[1:]]
    modalities = {
        name: modality.fitted(shape, {})
        for (name, modality), shape in zip(modalities_of(FEATURES).items(), shapes, strict=True)
    }
    stimulus = {name: modality.shape for name, modality in modalities.items()}
    return DenseModel(Shapes(stimulus, 1, voxels), modalities, width=width), modalities


def _size(layer: nn.Linear | nn.BatchNorm1d | SumOverFrames) -> tuple[int, ...]:
    """Return what a layer maps from, and to."""
    if isinstance(layer, SumOverFrames):
        width, pixels = layer.weight_of(0).shape
        return len(layer.frames), pixels, width
    return tuple(reversed(layer.weight.shape))


def describe(frames: int, voxels: int) -> str:
    """Return a table of the layers, made on the meta device."""
    with torch.device("meta"):
        model, _ = original(frames, voxels)
    lines = [f"dense model: {frames} frames of 90 x 160, {voxels:,} voxels"]
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear | nn.BatchNorm1d | SumOverFrames) and ".frames." not in name:
            size = " x ".join(f"{n:,}" for n in _size(layer))
            count = sum(p.numel() for p in layer.parameters())
            lines.append(f"  {name:<24}{type(layer).__name__:<14}{size:<22}{count:>16,}")
    for part in (model.encoder, model.decoder, model):
        count = sum(p.numel() for p in part.parameters())
        lines.append(f"  {type(part).__name__:<60}{count:>16,}")
    return "\n".join(lines)


if __name__ == "__main__":
    for frames, voxels in ((10, 83_138), (38, 77_347)):
        sys.stdout.write(describe(frames, voxels) + "\n\n")
