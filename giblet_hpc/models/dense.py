"""The original autoencoder, layer by layer and parameter for parameter.

`python -m giblet_hpc.training.describe` prints its layers, their shapes and their counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from giblet_hpc.errors import ConfigError
from giblet_hpc.models.shapes import Batch, DenseCoder, Output, Positions, Shapes

JOINT = 1536


def scaled(widths: Sequence[int], width: float) -> list[int]:
    """Return widths of hidden layers, times a factor; at least 1."""
    return [max(1, round(one * width)) for one in widths]


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


class OneFrame(nn.Linear):
    """A frame's part of a linear layer of several frames, without the bias.

    Parameters
    ----------
    pixels, width : int
    inputs : int
        Of the whole layer, all frames together.
    """

    def __init__(self, pixels: int, width: int, *, inputs: int) -> None:
        self._bound = inputs**-0.5
        super().__init__(pixels, width, bias=False)

    def reset_parameters(self) -> None:
        """Draw the weights as `nn.Linear` does for all frames' inputs."""
        nn.init.uniform_(self.weight, -self._bound, self._bound)


class SumOverFrames(nn.Module):
    """A linear layer of all pixels of all frames, as the sum of one layer a frame.

    The same map as one `nn.Linear` of ``frames * pixels`` inputs, which at the original's size
    would hold more numbers than 32 bits count.

    Parameters
    ----------
    frames, pixels, width : int
        ``pixels`` counts a frame's values, of all its colours.
    """

    def __init__(self, frames: int, pixels: int, width: int) -> None:
        super().__init__()
        self._bound = (frames * pixels) ** -0.5
        self.frames = nn.ModuleList(
            OneFrame(pixels, width, inputs=frames * pixels) for _ in range(frames)
        )
        self.bias = nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the bias; frames draw their own weights."""
        nn.init.uniform_(self.bias, -self._bound, self._bound)

    def weight_of(self, frame: int) -> torch.Tensor:
        """Return a frame's weights, (width, pixels)."""
        weight = self.frames[frame].weight
        assert isinstance(weight, torch.Tensor)
        return weight

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (N, frames * pixels) to (N, width); summed in the type of the bias."""
        return self.summed(inputs) + self.bias

    def summed(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the sum over frames, without the bias."""
        each = inputs.view(len(inputs), len(self.frames), -1).unbind(1)
        total = self.bias.new_zeros(len(inputs), len(self.bias))
        for layer, pixels in zip(self.frames, each, strict=True):
            total = total + layer(pixels)
        return total


class InSpan(nn.Module):
    """A linear layer of all pixels of all frames that sees their coordinates in a fixed basis.

    Its weights are those of ``nn.Linear`` that lie in the basis' span, drawn as that one's.

    Parameters
    ----------
    basis : ndarray of float16, shape (inputs, components)
        Orthonormal columns, times the square root of ``inputs``.
    width : int
    """

    basis: torch.Tensor

    def __init__(self, basis: NDArray[np.float16], width: int) -> None:
        super().__init__()
        self._basis, self._bound = basis, len(basis) ** -0.5
        # It is a study's, not learned: checkpoints do not need it.
        self.register_buffer("basis", torch.empty(basis.shape), persistent=False)
        self.weight = nn.Parameter(torch.empty(width, basis.shape[1]))
        self.bias = nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Put the basis in place and draw the weights."""
        if not self.basis.is_meta:
            self.basis.copy_(torch.from_numpy(self._basis))
            self.basis *= self._bound
        nn.init.uniform_(self.weight, -self._bound, self._bound)
        nn.init.uniform_(self.bias, -self._bound, self._bound)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (N, inputs) to (N, width)."""
        return nn.functional.linear(inputs @ self.basis, self.weight, self.bias)


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


def norms_of(model: nn.Module) -> list[nn.BatchNorm1d]:
    """Return a model's BatchNorms, in order."""
    return [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm1d)]


class Encoder(nn.Module):
    """Stimulus to bottleneck to voxels.

    Parameters
    ----------
    coders : mapping of str to DenseCoder
        Their encoders' widths add up to the joint layer's.
    bottleneck, voxels : int
    width : float
        What the hidden layers' widths are multiplied by.
    """

    def __init__(
        self, coders: Mapping[str, DenseCoder], *, bottleneck: int, voxels: int, width: float
    ) -> None:
        super().__init__()
        encoders = {name: coder.dense_encoder(width) for name, coder in coders.items()}
        self.each = nn.ModuleDict({name: e for name, e in encoders.items() if e is not None})
        # Each ends with a hidden layer, whose width is rounded by itself.
        joined = sum(norms_of(encoder)[-1].num_features for encoder in self.each.values())
        hidden = scaled([JOINT, 4096, 8000], width)
        self.joint = nn.Sequential(
            *stack([joined, *hidden], [0.2, 0.3, 0.3]),
            nn.Linear(hidden[-1], bottleneck),
            nn.BatchNorm1d(bottleneck),
        )
        (last,) = scaled([16384], width)
        self.voxels = nn.Sequential(*block(bottleneck, last, 0.3), nn.Linear(last, voxels))

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the bottleneck (N, Z) of N single TRs, inputs flattened."""
        return self.joint(torch.cat([self.each[name](inputs[name]) for name in self.each], dim=1))


class Decoder(nn.Module):
    """Bottleneck to each modality's flat row.

    Parameters
    ----------
    coders : mapping of str to DenseCoder
    bottleneck : int
    width : float
        What the hidden layers' widths are multiplied by.
    """

    def __init__(self, coders: Mapping[str, DenseCoder], *, bottleneck: int, width: float) -> None:
        super().__init__()
        hidden = scaled([8000, 4096, 2048, JOINT], width)
        self.joint = stack([bottleneck, *hidden], [0.3] * 4)
        self.each = nn.ModuleDict(
            {name: coder.dense_decoder(width) for name, coder in coders.items()}
        )

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
    width : float
        What the hidden layers' widths are multiplied by; 1 for the original's.

    Raises
    ------
    ConfigError
        When a modality is missing, or has no place in the original.
    """

    def __init__(
        self,
        shapes: Shapes,
        coders: Mapping[str, DenseCoder],
        *,
        bottleneck: int = 2048,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        with torch.device("meta"):
            places = [coder.dense_encoder(width) for coder in coders.values()]
        if len(places) != 3 or None in places:
            raise ConfigError(
                "model.kind dense needs video, audio codes and text, and nothing else",
                hint="model.kind temporal takes any of them",
            )
        self._coders = dict(coders)
        self.encoder = Encoder(coders, bottleneck=bottleneck, voxels=shapes.voxels, width=width)
        self.decoder = Decoder(coders, bottleneck=bottleneck, width=width)

    @property
    def parts(self) -> list[nn.Module]:
        """Layers that are computed by themselves: each modality's, the trunk's, the voxels'."""
        encoder, decoder = self.encoder, self.decoder
        own = [*encoder.each.values(), *decoder.each.values()]
        return [*own, encoder.joint, encoder.voxels, decoder.joint]

    def forward(self, batch: Batch, positions: Positions) -> Output:
        """Predict a batch of windows of one TR each; ``positions`` are not used."""
        inputs = {n: coder.dense_input(batch.stimulus[n]) for n, coder in self._coders.items()}
        bottleneck = self.encoder(inputs)[:, None, :]  # (N, 1, Z)
        self.seen_bottleneck = bottleneck
        voxels = self.scans(bottleneck, batch.inside, 1)
        rows = self.reconstruct(bottleneck, positions)
        return Output(voxels, bottleneck, voxels.new_zeros(()), rows)

    def reconstruct(
        self, bottleneck: torch.Tensor, positions: Positions
    ) -> dict[str, torch.Tensor]:
        """Return each modality's (N, 1, ...) from the bottleneck (N, 1, Z)."""
        del positions
        flat = self.decoder(bottleneck[:, 0])
        return {name: coder.dense_output(flat[name]) for name, coder in self._coders.items()}

    def scans(self, bottleneck: torch.Tensor, inside: torch.Tensor, target: int) -> torch.Tensor:
        """Return (N, 1, 1, V) from the bottleneck (N, 1, Z)."""
        del inside, target
        voxels: torch.Tensor = self.encoder.voxels(bottleneck[:, 0])
        return voxels[:, None, None, :]
