"""The temporal model: each TR is encoded, squeezed through the bottleneck, and from there both
reconstructed and, over past TRs, turned into voxels.

    frames ─ CNN ──┐
    codes ─ embed ─┼─ (causal context) ─ bottleneck ─┬─ components ─ FIR ─ voxels of each subject
    text ─ linear ─┘                                 └─ decoders: all frames, codes, text
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from giblet_hpc.config import TemporalModel
from giblet_hpc.models.heads import VoxelHead
from giblet_hpc.models.shapes import Batch, Output, Shapes

STRIDE = 16
PATCHES = 8
CODE_DIMENSIONS = 128


class FrameEncoder(nn.Module):
    """One small CNN and a linear map of coarse colours for every frame, mixed over a TR.

    Parameters
    ----------
    video : tuple of int
        (F, H, X).
    channels, width : int
    """

    def __init__(self, video: tuple[int, int, int], channels: int, width: int) -> None:
        super().__init__()
        frames, rows, columns = video
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))
        self.layers = nn.Sequential(
            nn.Conv2d(3, channels, 5, stride=4, padding=2),
            nn.GELU(),
            nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(2 * channels, 4 * channels, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.LazyLinear(width),
        )
        cells = -(-rows // STRIDE) * -(-columns // STRIDE)
        self.grid = nn.Linear(3 * cells, width)
        with torch.no_grad():
            self.layers(torch.zeros(1, 3, rows, columns))
        self.mix = nn.Parameter(_mixes(frames))  # (2, F)
        self.join = nn.Linear(2 * width, width)

    mean: torch.Tensor
    scale: torch.Tensor

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        """Encode (B, W, F, H, X, 3) uint8 to (B, W, width)."""
        pixels = (video.flatten(0, 2).permute(0, 3, 1, 2).float() / 255 - self.mean) / self.scale
        coarse = functional.avg_pool2d(pixels, STRIDE, ceil_mode=True).flatten(1)
        encoded = self.layers(pixels) + self.grid(coarse)
        frames = encoded.unflatten(0, video.shape[:3])  # (B, W, F, width)
        mixed = torch.einsum("bwfd,mf->bwmd", frames, self.mix.to(frames.dtype))
        return self.join(mixed.flatten(2))


def _mixes(frames: int) -> torch.Tensor:
    """Start at the mean over frames and at late minus early frames: (2, F)."""
    ramp = torch.linspace(-1, 1, frames) if frames > 1 else torch.zeros(1)
    return torch.stack([torch.ones(frames), ramp]) / frames


class CodeEncoder(nn.Module):
    """What the codes stand for, standardised: its mean and spread over a TR, and learned features.

    Codes are looked up in the codec's own codebooks rather than in a table to be learned: a film
    shows most of the 1024 codes of a codebook too rarely.

    Parameters
    ----------
    audio : tuple of int
        (Q, C).
    codes, dimensions : int
        Entries of a codebook and the width of its vectors.
    code_width, width : int
    """

    codebooks: torch.Tensor
    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(
        self, audio: tuple[int, int], *, codes: int, dimensions: int, code_width: int, width: int
    ) -> None:
        super().__init__()
        self.register_buffer("codebooks", torch.zeros(audio[0], codes, dimensions))
        self.register_buffer("mean", torch.zeros(dimensions))
        self.register_buffer("deviation", torch.ones(dimensions))
        self.hidden = nn.Linear(dimensions, code_width)
        self.join = nn.Linear(2 * dimensions + code_width, width)

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        """Encode (B, W, Q, C) int16 to (B, W, width)."""
        vectors = torch.stack(
            [book[audio[:, :, number].long()] for number, book in enumerate(self.codebooks)]
        ).sum(0)  # (B, W, C, dimensions)
        sound = (vectors - self.mean) / self.deviation
        learned = functional.gelu(self.hidden(sound)).mean(2)
        spread = sound.var(2, unbiased=False).add(1e-4).sqrt()
        return self.join(torch.cat([sound.mean(2), spread, learned], 2))


class VectorEncoder(nn.Module):
    """A linear map of standardised features (text, log-mel).

    Parameters
    ----------
    inputs, width : int
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(()))
        self.linear = nn.Linear(inputs, width)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Encode (B, W, ...) to (B, W, width)."""
        return self.linear((values.flatten(2) - self.mean) / self.scale)


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


class VideoDecoder(nn.Module):
    """All frames of a TR: the training mean plus what the bottleneck says.

    Parameters
    ----------
    video : tuple of int
        (F, H, X).
    bottleneck, channels, width : int
    """

    mean: torch.Tensor

    def __init__(
        self, video: tuple[int, int, int], *, bottleneck: int, channels: int, width: int
    ) -> None:
        super().__init__()
        self.video = video
        frames, rows, columns = video
        self.cells = (-(-rows // STRIDE), -(-columns // STRIDE))
        self.register_buffer("mean", torch.zeros(rows, columns, 3))
        self.whole = nn.Linear(bottleneck, width)
        self.each = nn.Linear(bottleneck, frames * 8)
        self.spread = nn.Linear(8, width, bias=False)
        self.layers = nn.Sequential(
            nn.GELU(),
            nn.Linear(width, 4 * channels * self.cells[0] * self.cells[1]),
            nn.GELU(),
            nn.Unflatten(1, (4 * channels, *self.cells)),
            nn.ConvTranspose2d(4 * channels, channels, 4, stride=4),
            nn.GELU(),
            nn.ConvTranspose2d(channels, 3, 4, stride=4),
        )

    def forward(self, bottleneck: torch.Tensor) -> torch.Tensor:
        """Decode (B, L, Z) to (B, L, F, H, X, 3), pixels as fractions of full brightness."""
        frames, rows, columns = self.video
        each = self.spread(self.each(bottleneck).unflatten(2, (frames, 8)))
        hidden = self.whole(bottleneck)[:, :, None] + each  # (B, L, F, width)
        pixels = self.layers(hidden.flatten(0, 2))[:, :, :rows, :columns]
        difference = pixels.permute(0, 2, 3, 1).unflatten(0, hidden.shape[:3])
        return difference + self.mean


class CodeDecoder(nn.Module):
    """Logits of the audio codes at some of a TR's frames.

    Parameters
    ----------
    audio : tuple of int
        (Q, C).
    bottleneck, codes, width : int
    """

    def __init__(self, audio: tuple[int, int], *, bottleneck: int, codes: int, width: int) -> None:
        super().__init__()
        codebooks, frames = audio
        self.parts = min(PATCHES, frames)
        self.size = -(-frames // self.parts)
        self.each = nn.Linear(bottleneck, self.parts * width)
        self.position = nn.Parameter(torch.zeros(frames, width))
        self.codebook = nn.Parameter(torch.zeros(codebooks, width))
        self.logits = nn.ModuleList(nn.Linear(width, codes) for _ in range(codebooks))

    def set_unigram(self, log_probability: torch.Tensor) -> None:
        """Start at the training frequencies: (Q, codes), natural logarithms."""
        for head, values in zip(self.logits, log_probability, strict=True):
            assert isinstance(head, nn.Linear)
            head.bias.data.copy_(values)
            head.weight.data.mul_(0.1)

    def forward(self, bottleneck: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Decode (B, L, Z) at ``frames`` (n,) to (B, L, n, Q, codes)."""
        parts = self.each(bottleneck).unflatten(2, (self.parts, -1))
        hidden = parts[:, :, frames // self.size] + self.position[frames]  # (B, L, n, width)
        return torch.stack(
            [
                head(functional.gelu(hidden + vector))
                for head, vector in zip(self.logits, self.codebook, strict=True)
            ],
            dim=3,
        )


class TemporalNet(nn.Module):
    """The whole model.

    Parameters
    ----------
    shapes : Shapes
    bottleneck : int
    options : TemporalModel
    tr : float
        Seconds.
    """

    def __init__(
        self, shapes: Shapes, *, bottleneck: int, options: TemporalModel, tr: float
    ) -> None:
        super().__init__()
        self.shapes = shapes
        self.modality_dropout = options.modality_dropout
        width = options.width
        self.encoders = nn.ModuleDict(
            {name: self._encoder(name, options) for name in shapes.modalities}
        )
        joined = width * len(shapes.modalities)
        self.context = CausalContext(joined, options.context_layers)
        self.squeeze = nn.Linear(joined, bottleneck)
        self.dropout = nn.Dropout(options.dropout)
        self.voxels = VoxelHead(
            bottleneck, subjects=shapes.subjects, voxels=shapes.voxels, options=options, tr=tr
        )
        self.decoders = nn.ModuleDict(
            {name: self._decoder(name, options, bottleneck) for name in shapes.modalities}
        )

    def _encoder(self, name: str, options: TemporalModel) -> nn.Module:
        shapes = self.shapes
        if name == "video":
            assert shapes.video
            return FrameEncoder(shapes.video, options.frame_channels, options.width)
        if name == "audio" and shapes.codes:
            assert shapes.audio
            return CodeEncoder(
                shapes.audio,
                codes=shapes.codes,
                dimensions=CODE_DIMENSIONS,
                code_width=options.code_width,
                width=options.width,
            )
        return VectorEncoder(self._vector(name), options.width)

    def _decoder(self, name: str, options: TemporalModel, bottleneck: int) -> nn.Module:
        shapes = self.shapes
        if name == "video":
            assert shapes.video
            return VideoDecoder(
                shapes.video,
                bottleneck=bottleneck,
                channels=options.frame_channels,
                width=options.width,
            )
        if name == "audio" and shapes.codes:
            assert shapes.audio
            return CodeDecoder(
                shapes.audio,
                bottleneck=bottleneck,
                codes=shapes.codes,
                width=options.code_width,
            )
        return nn.Linear(bottleneck, self._vector(name))

    def _vector(self, name: str) -> int:
        if name == "audio":
            assert self.shapes.audio
            return self.shapes.audio[0] * self.shapes.audio[1]
        assert self.shapes.text
        return self.shapes.text

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

    def forward(self, batch: Batch, audio_frames: torch.Tensor) -> Output:
        """Predict and reconstruct the target TRs, the last L of each window.

        Parameters
        ----------
        batch : Batch
        audio_frames : Tensor, (n,) int64
            Frames of a TR at which audio codes are reconstructed.
        """
        target = batch.bold.shape[1]
        bottleneck = self.encode(batch)
        self.seen_bottleneck = bottleneck
        now = bottleneck[:, -target:]
        reconstruction = {}
        for name, decoder in self.decoders.items():
            if isinstance(decoder, CodeDecoder):
                reconstruction[name] = decoder(now, audio_frames)
            else:
                reconstruction[name] = decoder(now)
        if self.shapes.audio and not self.shapes.codes:
            reconstruction["audio"] = reconstruction["audio"].unflatten(2, self.shapes.audio)
        bold = self.voxels(bottleneck, batch.inside, target)
        return Output(bold, bottleneck, self.map_penalty(), reconstruction)
