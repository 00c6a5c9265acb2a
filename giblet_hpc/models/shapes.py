"""What goes into a model and what comes out of it.

Dimension legend, used in the comments of this package and of the modalities:
B windows, W TRs of a window with its context, L target TRs, F frames, H rows, X columns,
Q codebooks (or mel bands), C audio frames, D text features, Z bottleneck, S subjects, V voxels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import nn

from giblet_hpc.config.model import TemporalModel

Positions = Mapping[str, torch.Tensor]
"""For modalities that are reconstructed at some positions of a TR only: their indices, (n,)."""


@dataclass(frozen=True)
class Shapes:
    """Sizes of a study's arrays."""

    stimulus: Mapping[str, tuple[int, ...]]
    """Shape of one TR of each modality in use, in a fixed order."""
    subjects: int
    """S."""
    voxels: int
    """V."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities in use."""
        return tuple(self.stimulus)


class Batch(NamedTuple):
    """Windows of consecutive TRs."""

    stimulus: dict[str, torch.Tensor]
    """Each modality's (B, W, ...), of the type it is stored in."""
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
    """Each modality's (B, L, ...), as its decoder makes it."""


class Halves(Protocol):
    """What a network makes of its bottleneck, whatever put the values there."""

    def reconstruct(
        self, bottleneck: torch.Tensor, positions: Positions
    ) -> dict[str, torch.Tensor]:
        """Return each modality's (B, L, ...) from the bottleneck (B, L, Z)."""

    def scans(self, bottleneck: torch.Tensor, inside: torch.Tensor, target: int) -> torch.Tensor:
        """Return the last ``target`` TRs' (B, L, S, V) from the bottleneck (B, W, Z)."""


class Coder(Protocol):
    """A modality's two networks in the temporal model."""

    @property
    def feeds(self) -> bool:
        """Whether the model sees it: it has an encoder."""

    @property
    def reconstructed(self) -> bool:
        """Whether the model reconstructs it: it has a decoder."""

    def encoder(self, options: TemporalModel) -> nn.Module:
        """Return the network from (B, W, ...) to (B, W, width)."""

    def decoder(self, options: TemporalModel, bottleneck: int) -> nn.Module:
        """Return the network from (B, L, Z), and positions if it has any, to (B, L, ...)."""


class DenseCoder(Protocol):
    """A modality's two networks in the dense model, between flat rows.

    Their hidden layers' widths are multiplied by ``width``.
    """

    def dense_encoder(self, width: float) -> nn.Module | None:
        """Return the network from (N, inputs) to its part of the joint layer; None: no place."""

    def dense_decoder(self, width: float) -> nn.Module:
        """Return the network from (N, joint) to (N, outputs)."""

    def dense_input(self, rows: torch.Tensor) -> torch.Tensor:
        """Turn stored rows (N, 1, ...) into (N, inputs)."""

    def dense_output(self, flat: torch.Tensor) -> torch.Tensor:
        """Turn (N, outputs) into (N, 1, ...)."""
