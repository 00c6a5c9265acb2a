"""Modalities bound to small shapes and made-up estimates, for tests of networks and losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from giblet_hpc.config.features import AudioFeatures, Features, TextFeatures, VideoFeatures
from giblet_hpc.modalities.base import Modality
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.models.shapes import Batch, Shapes

SHAPES: dict[str, tuple[int, ...]] = {"video": (3, 20, 36, 3), "audio": (2, 10), "text": (7,)}


def modalities(letters: str, shapes: dict[str, tuple[int, ...]] = SHAPES) -> dict[str, Modality]:
    """Return those of v(ideo), a(udio codes), m(el) and t(ext), on made-up estimates."""
    sections: dict[str, Any] = {}
    if "v" in letters:
        sections["video"] = VideoFeatures()
    if set("am") & set(letters):
        kind = "codes" if "a" in letters else "mel"
        sections["audio"] = AudioFeatures(codec="untrained", kind=kind, loss_frames=3)
    if "t" in letters:
        sections["text"] = TextFeatures(encoder="lsa")
    random = np.random.default_rng(0)
    found = {}
    for name, modality in modalities_of(Features(**sections)).items():
        shape = shapes[name]
        estimates: dict[str, Any] = {"variance": np.array(1.0)}
        if name == "video":
            estimates["mean"] = np.full(shape[1:], 0.5, np.float32)
        elif name == "audio" and "a" in letters:
            estimates |= {
                "codebooks": random.standard_normal((shape[0], 1024, 128)).astype(np.float32),
                "vector_mean": np.zeros(128, np.float32),
                "vector_deviation": np.ones(128, np.float32),
                "log_probability": np.full((shape[0], 1024), -np.log(1024), np.float32),
                "entropy": np.array(np.log(1024)),
            }
        else:
            estimates["mean"] = np.zeros(shape, np.float32)
            estimates["band_mean"] = np.zeros(shape[0], np.float32)
            estimates["band_deviation"] = np.ones(shape[0], np.float32)
        found[name] = modality.fitted(shape, estimates)
    return found


def shapes_of(coders: dict[str, Modality], *, subjects: int = 3, voxels: int = 11) -> Shapes:
    return Shapes({n: coder.shape for n, coder in coders.items()}, subjects, voxels)


def batch_of(
    coders: dict[str, Modality], shapes: Shapes, windows: int = 2, trs: int = 9, target: int = 6
) -> Batch:
    """Return a random batch."""
    generator = torch.Generator().manual_seed(0)
    stimulus = {}
    for name, coder in coders.items():
        size = (windows, trs, *coder.shape)
        if name == "video":
            stimulus[name] = torch.randint(0, 255, size, generator=generator, dtype=torch.uint8)
        elif "codebooks" in coder.estimates:
            stimulus[name] = torch.randint(0, 1024, size, generator=generator, dtype=torch.int16)
        else:
            stimulus[name] = torch.randn(size, generator=generator)
    return Batch(
        stimulus,
        torch.ones(windows, trs, dtype=torch.bool),
        torch.randn((windows, target, shapes.subjects, shapes.voxels), generator=generator),
        torch.ones(windows, target, shapes.subjects, dtype=torch.bool),
    )
