"""The original autoencoder, layer by layer and parameter for parameter.

`python -m giblet_hpc.training.describe` prints its layers, their shapes and their counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from giblet_hpc.errors import ConfigError
from giblet_hpc.models.shapes import Batch, DenseCoder, Output, Positions, Shapes

JOINT = 1536


def block(inputs: int, outputs: int, dropout: float, *, relu: bool = True) -> list[nn.Module]:
    """Return Linear, BatchNorm, (ReLU), Dropout."""
    layers: list[nn.Module] = [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs)]
    if relu:
        layers.append(nn.ReLU())
    return [*layers, nn.Dropout(dropout)]


def stack(widths: Sequence[int], dropouts: Sequence[float]) -> nn.Sequential:
    """Return blocks between consecutive widths."""
    pairs = zip(widths[:-1], widths[1:], dropouts, strict=True)
    return nn.Sequential(*(layer for a, b, p in pairs for layer in block(a, b, p)))


def with_norms(model: nn.Module, make: Callable[[nn.BatchNorm1d], nn.Module]) -> nn.Module:
    """Replace each BatchNorm of a model by what is made of it."""
    for name, child in model.named_children():
        if isinstance(child, nn.BatchNorm1d):
            setattr(model, name, make(child))
        else:
            with_norms(child, make)
    return model


def with_layer_norm(model: nn.Module) -> nn.Module:
    """Replace each BatchNorm of a model by a LayerNorm of the same width."""
    return with_norms(model, lambda norm: nn.LayerNorm(norm.num_features))


class Encoder(nn.Module):
    """Stimulus to bottleneck to voxels.

    Parameters
    ----------
    coders : mapping of str to DenseCoder
        Their encoders' widths add up to the joint layer's.
    bottleneck, voxels : int
    """

    def __init__(self, coders: Mapping[str, DenseCoder], *, bottleneck: int, voxels: int) -> None:
        super().__init__()
        encoders = {name: coder.dense_encoder() for name, coder in coders.items()}
        self.each = nn.ModuleDict({name: e for name, e in encoders.items() if e is not None})
        self.joint = nn.Sequential(
            *stack([JOINT, JOINT, 4096, 8000], [0.2, 0.3, 0.3]),
            nn.Linear(8000, bottleneck),
            nn.BatchNorm1d(bottleneck),
        )
        self.voxels = nn.Sequential(*block(bottleneck, 16384, 0.3), nn.Linear(16384, voxels))

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the bottleneck (N, Z) of N single TRs, inputs flattened."""
        return self.joint(torch.cat([self.each[name](inputs[name]) for name in self.each], dim=1))


class Decoder(nn.Module):
    """Bottleneck to each modality's flat row.

    Parameters
    ----------
    coders : mapping of str to DenseCoder
    bottleneck : int
    """

    def __init__(self, coders: Mapping[str, DenseCoder], *, bottleneck: int) -> None:
        super().__init__()
        self.joint = stack([bottleneck, 8000, 4096, 2048, JOINT], [0.3] * 4)
        self.each = nn.ModuleDict({name: coder.dense_decoder() for name, coder in coders.items()})

    def forward(self, bottleneck: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return flat reconstructions by modality, (N, outputs)."""
        joined = self.joint(bottleneck)
        return {name: decoder(joined) for name, decoder in self.each.items()}


class DenseModel(nn.Module):
    """The whole autoencoder; every TR is a sample of its own.

    Parameters
    ----------
    shapes : Shapes
    coders : mapping of str to DenseCoder
    bottleneck : int

    Raises
    ------
    ConfigError
        When a modality is missing, or has no place in the original.
    """

    def __init__(
        self, shapes: Shapes, coders: Mapping[str, DenseCoder], *, bottleneck: int = 2048
    ) -> None:
        super().__init__()
        with torch.device("meta"):
            places = [coder.dense_encoder() for coder in coders.values()]
        if len(places) != 3 or None in places:
            raise ConfigError(
                "model.kind dense needs video, audio codes and text, and nothing else",
                hint="model.kind temporal takes any of them",
            )
        self._coders = dict(coders)
        self.encoder = Encoder(coders, bottleneck=bottleneck, voxels=shapes.voxels)
        self.decoder = Decoder(coders, bottleneck=bottleneck)

    def forward(self, batch: Batch, positions: Positions) -> Output:
        """Predict a batch of windows of one TR each; ``positions`` are not used."""
        del positions
        inputs = {n: coder.dense_input(batch.stimulus[n]) for n, coder in self._coders.items()}
        bottleneck = self.encoder(inputs)[:, None, :]  # (N, 1, Z)
        self.seen_bottleneck = bottleneck
        voxels = self.encoder.voxels(bottleneck[:, 0])
        flat = self.decoder(bottleneck[:, 0])
        rows = {name: coder.dense_output(flat[name]) for name, coder in self._coders.items()}
        return Output(voxels[:, None, None, :], bottleneck, voxels.new_zeros(()), rows)
