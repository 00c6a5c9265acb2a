"""The temporal model: each TR is encoded, squeezed through the bottleneck, and from there both
reconstructed and, over past TRs, turned into voxels.

    frames ─ CNN ──┐
    codes ─ embed ─┼─ (causal context) ─ bottleneck ─┬─ components ─ FIR ─ voxels of each subject
    text ─ linear ─┘                                 └─ decoders: all frames, codes, text

Encoders and decoders are those of the modalities.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from giblet_hpc.config.model import TemporalModel
from giblet_hpc.models.heads import VoxelHead
from giblet_hpc.models.shapes import Batch, Coder, Output, Positions, Shapes
from giblet_hpc.models.vectors import VectorEncoder


class CausalContext(nn.Module):
    """Dilated causal convolutions over TRs, each added to its input; starts as the identity.

    Parameters
    ----------
    width, layers : int
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv1d(width, width, 3, dilation=2**layer) for layer in range(layers)
        )
        for layer in self.layers:
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, values: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """Mix (B, W, width) over past TRs inside the block."""
        courses = values.transpose(1, 2)
        mask = inside[:, None, :]
        for number, layer in enumerate(self.layers):
            past = functional.pad(courses * mask, (2 * 2**number, 0))
            courses = courses + functional.gelu(layer(past))
        return courses.transpose(1, 2)


class TemporalNet(nn.Module):
    """The whole model.

    Parameters
    ----------
    shapes : Shapes
    coders : mapping of str to Coder
        Encoder and decoder of each modality.
    bottleneck : int
    options : TemporalModel
    tr : float
        Seconds.
    """

    def __init__(
        self,
        shapes: Shapes,
        coders: Mapping[str, Coder],
        *,
        bottleneck: int,
        options: TemporalModel,
        tr: float,
    ) -> None:
        super().__init__()
        self.modality_dropout = options.modality_dropout
        self.encoders = nn.ModuleDict(
            {name: coder.encoder(options) for name, coder in coders.items() if coder.feeds}
        )
        joined = options.width * len(self.encoders)
        self.context = CausalContext(joined, options.context_layers)
        self.squeeze = nn.Linear(joined, bottleneck)
        self.dropout = nn.Dropout(options.dropout)
        self.voxels = VoxelHead(
            bottleneck, subjects=shapes.subjects, voxels=shapes.voxels, options=options, tr=tr
        )
        self.decoders = nn.ModuleDict(
            {
                name: coder.decoder(options, bottleneck)
                for name, coder in coders.items()
                if coder.reconstructed
            }
        )

    @property
    def parts(self) -> list[nn.Module]:
        """Layers that are computed by themselves: each modality's, and those to the voxels."""
        return [*self.encoders.values(), self.voxels, *self.decoders.values()]

    def encode(self, batch: Batch) -> torch.Tensor:
        """Return the bottleneck of every TR of the windows: (B, W, Z)."""
        encoded = [encoder(batch.stimulus[name]) for name, encoder in self.encoders.items()]
        if self.training and self.modality_dropout:
            encoded = self._drop_modalities(encoded)
        joined = self.context(torch.cat(encoded, dim=2), batch.inside)
        return self.squeeze(self.dropout(joined))

    def map_penalty(self) -> torch.Tensor:
        """Return the squared weights of the linear maps from vector features to voxels."""
        total = torch.zeros((), device=self.squeeze.weight.device)
        width = self.squeeze.weight.shape[1] // len(self.encoders)
        for number, encoder in enumerate(self.encoders.values()):
            if isinstance(encoder, VectorEncoder):
                part = self.squeeze.weight[:, number * width : (number + 1) * width]
                total = total + self.voxels.map_penalty(part @ encoder.linear.weight)
        return total

    def _drop_modalities(self, encoded: list[torch.Tensor]) -> list[torch.Tensor]:
        """Blank modalities of whole windows by chance, never all of a window."""
        windows, count = encoded[0].shape[0], len(encoded)
        keep = torch.rand(windows, count, device=encoded[0].device) >= self.modality_dropout
        spared = torch.randint(count, (windows,), device=keep.device)
        keep |= functional.one_hot(spared, count).bool() & ~keep.any(1, keepdim=True)
        return [values * keep[:, i, None, None] for i, values in enumerate(encoded)]

    def forward(self, batch: Batch, positions: Positions) -> Output:
        """Predict and reconstruct the target TRs, the last L of each window.

        Parameters
        ----------
        batch : Batch
        positions : mapping of str to Tensor
            For modalities that are reconstructed at some positions of a TR only.
        """
        target = batch.bold.shape[1]
        bottleneck = self.encode(batch)
        self.seen_bottleneck = bottleneck
        reconstruction = self.reconstruct(bottleneck[:, -target:], positions)
        bold = self.scans(bottleneck, batch.inside, target)
        return Output(bold, bottleneck, self.map_penalty(), reconstruction)

    def reconstruct(
        self, bottleneck: torch.Tensor, positions: Positions
    ) -> dict[str, torch.Tensor]:
        """Return each modality's (B, L, ...) from the bottleneck (B, L, Z)."""
        return {
            name: decoder(bottleneck, positions[name]) if name in positions else decoder(bottleneck)
            for name, decoder in self.decoders.items()
        }

    def scans(self, bottleneck: torch.Tensor, inside: torch.Tensor, target: int) -> torch.Tensor:
        """Return the last ``target`` TRs' (B, L, S, V) from the bottleneck (B, W, Z)."""
        scans: torch.Tensor = self.voxels(bottleneck, inside, target)
        return scans
