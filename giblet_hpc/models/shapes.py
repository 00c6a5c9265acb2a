"""What goes into a model and what comes out of it.

Dimension legend, used in the comments of this package:
B windows, W TRs of a window with its context, L target TRs, F frames, H rows, X columns,
Q codebooks (or mel bands), C audio frames, D text features, Z bottleneck, S subjects, V voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch


@dataclass(frozen=True)
class Shapes:
    """Sizes of a study's arrays."""

    video: tuple[int, int, int] | None
    """(F, H, X), or None without video."""
    audio: tuple[int, int] | None
    """(Q, C), or None without audio."""
    codes: int
    """Values an audio code can take; 0 for a log-mel spectrogram."""
    text: int | None
    """D, or None without text."""
    subjects: int
    """S."""
    voxels: int
    """V."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities in use."""
        present = {"video": self.video, "audio": self.audio, "text": self.text}
        return tuple(name for name, shape in present.items() if shape is not None)


class Batch(NamedTuple):
    """Windows of consecutive TRs."""

    stimulus: dict[str, torch.Tensor]
    """video (B, W, F, H, X, 3) uint8; audio (B, W, Q, C) int16 or float32; text (B, W, D)."""
    inside: torch.Tensor
    """(B, W) bool: the TR belongs to the window's block. Others are padding."""
    bold: torch.Tensor
    """(B, L, S, V) float32."""
    valid: torch.Tensor
    """(B, L, S) bool: there is a scan to compare with."""


class Output(NamedTuple):
    """What a model makes of a batch."""

    bold: torch.Tensor
    """(B, L, S, V); S is 1 where a model does not tell subjects apart."""
    bottleneck: torch.Tensor
    """(B, W, Z), the tensor that both scans and reconstructions are computed from."""
    map_penalty: torch.Tensor
    """Scalar: squared weights of the linear maps from vector features to voxels; 0 without."""
    reconstruction: dict[str, torch.Tensor]
    """video (B, L, F, H, X, 3) in [0, 1]; audio codes (B, L, n, Q, codes) logits at the n frames
    that were asked for, or mel (B, L, Q, C); text (B, L, D)."""
