"""The original autoencoder, layer by layer and parameter for parameter.

`python -m giblet_hpc.models.dense` prints its layers, their shapes and their counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from giblet_hpc.errors import ConfigError
from giblet_hpc.models.shapes import Batch, Output, Shapes

MAX_CODE = 1023.0
SMALLEST_BATCH = 8


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


class Encoder(nn.Module):
    """Stimulus to bottleneck to voxels.

    Parameters
    ----------
    shapes : Shapes
        All three modalities are needed.
    bottleneck : int
    """

    def __init__(self, shapes: Shapes, bottleneck: int) -> None:
        super().__init__()
        assert shapes.video and shapes.audio and shapes.text
        frames, rows, columns = shapes.video
        codebooks, codes = shapes.audio
        self.video = stack([frames * rows * columns * 3, 4096, 2048, 1024], [0.3, 0.3, 0.2])
        self.audio = nn.Sequential(
            *block(codebooks * codes, 512, 0.3, relu=False),
            nn.ReLU(),
            *block(512, 256, 0.2, relu=False),
            nn.ReLU(),
        )
        self.text = stack([shapes.text, 512, 256], [0.2, 0.2])
        self.joint = nn.Sequential(
            *stack([1536, 1536, 4096, 8000], [0.2, 0.3, 0.3]),
            nn.Linear(8000, bottleneck),
            nn.BatchNorm1d(bottleneck),
        )
        self.voxels = nn.Sequential(*block(bottleneck, 16384, 0.3), nn.Linear(16384, shapes.voxels))

    def forward(self, video: torch.Tensor, audio: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Return the bottleneck (N, Z) of N single TRs, inputs flattened."""
        return self.joint(torch.cat([self.video(video), self.audio(audio), self.text(text)], dim=1))


class Decoder(nn.Module):
    """Bottleneck to one video frame, all audio codes, and text.

    Parameters
    ----------
    shapes : Shapes
    bottleneck : int
    """

    def __init__(self, shapes: Shapes, bottleneck: int) -> None:
        super().__init__()
        assert shapes.video and shapes.audio and shapes.text
        _, rows, columns = shapes.video
        codebooks, codes = shapes.audio
        self.joint = stack([bottleneck, 8000, 4096, 2048, 1536], [0.3] * 4)
        self.video = nn.Sequential(
            *stack([1536, 2048, 4096], [0.3, 0.3]),
            nn.Linear(4096, rows * columns * 3),
            nn.Sigmoid(),
        )
        self.audio = nn.Sequential(
            *stack([1536, 2048, 2048], [0.3, 0.3]),
            nn.Linear(2048, codebooks * codes),
            nn.Sigmoid(),
        )
        self.text = nn.Sequential(
            *stack([1536, 1024, 1024], [0.3, 0.3]), nn.Linear(1024, shapes.text)
        )

    def forward(self, bottleneck: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return flat reconstructions: (N, H*X*3) in [0, 1], (N, Q*C) codes, (N, D)."""
        joined = self.joint(bottleneck)
        return {
            "video": self.video(joined),
            "audio": self.audio(joined) * MAX_CODE,
            "text": self.text(joined),
        }


class DenseModel(nn.Module):
    """The whole autoencoder; every TR is a sample of its own.

    Parameters
    ----------
    shapes : Shapes
    bottleneck : int

    Raises
    ------
    ConfigError
        When a modality is missing, or the sound is not given as codes.
    """

    def __init__(self, shapes: Shapes, bottleneck: int = 2048) -> None:
        super().__init__()
        if shapes.modalities != ("video", "audio", "text") or not shapes.codes:
            raise ConfigError(
                "model.kind dense needs video, audio codes and text",
                hint="model.kind temporal takes any of them",
            )
        self.shapes = shapes
        self.encoder = Encoder(shapes, bottleneck)
        self.decoder = Decoder(shapes, bottleneck)

    def forward(self, batch: Batch, audio_frames: torch.Tensor) -> Output:
        """Predict a batch of windows of one TR each; ``audio_frames`` is not used."""
        del audio_frames
        count = batch.inside.shape[0]
        if self.training and count < SMALLEST_BATCH:
            raise ConfigError(
                f"the dense model's BatchNorm sees {count} TRs at a time; with so few it keeps "
                f"only signs. It needs at least {SMALLEST_BATCH} a rank",
                hint="raise train.batch_windows, or use fewer ranks",
            )
        video = batch.stimulus["video"].flatten(1).float() / 255
        audio = batch.stimulus["audio"].flatten(1).float()
        text = batch.stimulus["text"].flatten(1)
        bottleneck = self.encoder(video, audio, text)[:, None, :]  # (N, 1, Z)
        self.seen_bottleneck = bottleneck
        voxels = self.encoder.voxels(bottleneck[:, 0])
        flat = self.decoder(bottleneck[:, 0])
        assert self.shapes.video and self.shapes.audio
        _, rows, columns = self.shapes.video
        return Output(
            voxels[:, None, None, :],
            bottleneck,
            voxels.new_zeros(()),
            {
                "video": flat["video"].reshape(count, 1, 1, rows, columns, 3),
                "audio": flat["audio"].reshape(count, 1, *self.shapes.audio),
                "text": flat["text"][:, None, :],
            },
        )


def describe(frames: int, voxels: int) -> str:
    """Return a table of the layers, made on the meta device."""
    with torch.device("meta"):
        shapes = Shapes((frames, 90, 160), (8, 112), 1024, 3072, 1, voxels)
        model = DenseModel(shapes)
    lines = [f"dense model: {frames} frames of 90 x 160, {voxels:,} voxels"]
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear | nn.BatchNorm1d):
            size = " x ".join(f"{n:,}" for n in reversed(layer.weight.shape))
            count = sum(p.numel() for p in layer.parameters())
            lines.append(f"  {name:<22}{type(layer).__name__:<14}{size:<22}{count:>16,}")
    for part in (model.encoder, model.decoder, model):
        count = sum(p.numel() for p in part.parameters())
        lines.append(f"  {type(part).__name__:<58}{count:>16,}")
    return "\n".join(lines)


if __name__ == "__main__":
    import sys

    for frames, voxels in ((10, 83_138), (38, 77_347)):
        sys.stdout.write(describe(frames, voxels) + "\n\n")
