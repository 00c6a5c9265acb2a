"""Video: frames of the film as pixels, encoded by a small CNN."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from giblet_hpc import timing
from giblet_hpc.arrays import ArraySpec
from giblet_hpc.config.features import Modality as Section
from giblet_hpc.config.features import VideoFeatures
from giblet_hpc.config.io import own_fields
from giblet_hpc.config.model import TemporalModel
from giblet_hpc.config.study import ScanRun
from giblet_hpc.digests import Digests, code_digest
from giblet_hpc.media import clips, film
from giblet_hpc.modalities.base import (
    SPAN,
    Modality,
    Normalise,
    Note,
)
from giblet_hpc.modalities.moments import moments
from giblet_hpc.modalities.rows import by_shard, film_inputs, write_in_order
from giblet_hpc.models.dense import JOINT, InSpan, SumOverFrames, scaled, stack
from giblet_hpc.store import FeatureStore
from giblet_hpc.survey import Survey

STRIDE = 16
SSIM_WINDOW = 11
"""Pixels, of the window in which structural similarity compares."""
SAME = 1e-10
"""Mean squared error below which frames count as the same: 100 dB."""


class Video(Modality):
    """Rows of frames, (F, H, X, 3) uint8."""

    panels: ClassVar[int] = 2
    spanned: ClassVar[bool] = True
    options: VideoFeatures

    def __init__(self, name: str, options: Section) -> None:
        super().__init__(name, options)
        self.labels = {
            **self.labels,
            "psnr": "peak signal-to-noise ratio, dB",
            "ssim": "structural similarity (1 = the same)",
        }

    def _fps(self, survey: Survey) -> float:
        """Return the frames a second to sample: the config's, else those of the first film."""
        return self.options.fps or next(iter(survey.films.values())).fps

    def expected_shape(self, *, tr: float, fps: float) -> tuple[int, ...]:
        """Return (F, H, X, 3)."""
        options = self.options
        frames = timing.frames_per_tr(fps=options.fps or fps, tr=tr, skip=options.frame_skip)
        return (frames, options.height, options.width, 3)

    def array(self, survey: Survey, run: ScanRun, digests: Digests) -> ArraySpec:
        """Return a run's array of frames."""
        fps = self._fps(survey)
        return ArraySpec(
            self.array_name(run.name),
            (survey.lengths[run.name], *self.expected_shape(tr=survey.config.study.tr, fps=fps)),
            "uint8",
            {
                **film_inputs(survey, run, digests),
                f"features.{self.name}": {**own_fields(self.options), "fps": fps},
                "code": code_digest(film, timing.frame_times, Video.write, _batched, by_shard),
            },
        )

    def write(
        self, survey: Survey, run: ScanRun, *, spec: ArraySpec, store: FeatureStore, note: Note
    ) -> None:
        """Write the missing shards of a run's frames, in one pass over the film."""
        assert run.film is not None
        study, options = survey.config.study, self.options
        file, start = study.root / run.film, run.film_start
        times = start + timing.frame_times(
            trs=spec.shape[0], tr=study.tr, fps=self._fps(survey), skip=options.frame_skip
        )

        def rows(trs: slice) -> Iterator[NDArray[np.uint8]]:
            frames = film.sample_frames(
                file, times[trs].reshape(-1), height=options.height, width=options.width
            )
            return _batched(frames, spec.shape[1])

        write_in_order(rows, spec, store, label=f"{self.name} {run.name}", note=note)

    def sums(self, rows: NDArray[Any], shared: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
        """Return moments of frames, (H, X, 3), as fractions of the brightest."""
        del shared
        total: dict[str, NDArray[Any]] = {}
        for row in rows:
            found = moments(row.astype(np.float64) / 255)
            total = {name: total.get(name, 0) + value for name, value in found.items()}
        return total

    def encoder(self, options: TemporalModel) -> nn.Module:
        """Return the CNN of all frames."""
        return FrameEncoder(
            self.shape,
            mean=float(self.estimate("mean").mean()),
            variance=float(self.estimates["variance"]),
            channels=options.frame_channels,
            width=options.width,
        )

    def decoder(self, options: TemporalModel, bottleneck: int) -> nn.Module:
        """Return the decoder of all frames."""
        return FrameDecoder(
            self.estimate("mean"),
            frames=self.shape[0],
            bottleneck=bottleneck,
            channels=options.frame_channels,
            width=options.width,
        )

    def target(self, rows: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
        """Return pixels as fractions, of as many frames as there are predicted."""
        return rows[:, :, : predicted.shape[2]].float() / 255

    def dense_encoder(self, width: float) -> nn.Module:
        """Return the original's encoder of all pixels of all frames, or of what they span."""
        frames, pixels = self.shape[0], int(np.prod(self.shape[1:]))
        first, *others = scaled([4096, 2048, 1024], width)
        layers = [nn.BatchNorm1d(first), nn.ReLU(), nn.Dropout(0.3)]
        after = stack([first, *others], [0.3, 0.2])
        span = self.estimates.get(SPAN)
        seeing = SumOverFrames(frames, pixels, first) if span is None else InSpan(span, first)
        return nn.Sequential(seeing, *layers, *after)

    def dense_decoder(self, width: float) -> nn.Module:
        """Return the original's decoder of one frame."""
        hidden = scaled([JOINT, 2048, 4096], width)
        return nn.Sequential(
            *stack(hidden, [0.3, 0.3]),
            nn.Linear(hidden[-1], int(np.prod(self.shape[1:]))),
            nn.Sigmoid(),
        )

    def dense_input(self, rows: torch.Tensor) -> torch.Tensor:
        """Return pixels as fractions."""
        return rows.flatten(1).to(torch.get_default_dtype()) / 255

    def dense_output(self, flat: torch.Tensor) -> torch.Tensor:
        """Return one frame, (N, 1, 1, H, X, 3)."""
        return flat.reshape(len(flat), 1, 1, *self.shape[1:])

    def cost_of_mean(self, variance: float, normalise: Normalise, *, dense: bool) -> float:
        """Return it for pixels as fractions, which models see."""
        return super().cost_of_mean(variance / 255**2, normalise, dense=dense)

    def baseline_features(
        self, inputs: NDArray[Any], shared: NDArray[Any] | None
    ) -> NDArray[np.float32]:
        """Return the mean frame's pixels of each TR."""
        del shared
        return inputs.mean(axis=1, dtype=np.float32).reshape(len(inputs), -1) / 255

    def scores(
        self,
        predicted: torch.Tensor,
        rows: torch.Tensor,
        mask: torch.Tensor,
        *,
        positions: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        """Return the error, and how alike frames are; structural similarity of a TR's first one."""
        figures = super().scores(predicted, rows, mask, positions=positions)
        made, shown = predicted.float().clamp(0, 1)[mask], self.target(rows, predicted)[mask]
        error = (made - shown).square().flatten(2).mean(2).clamp(min=SAME)
        figures["psnr"] = (-10 * error.log10()).mean()
        if min(self.shape[1:3]) >= SSIM_WINDOW:
            pairs = zip(made[:, 0].cpu().numpy(), shown[:, 0].cpu().numpy(), strict=True)
            figures["ssim"] = torch.tensor([similarity(*pair) for pair in pairs]).mean()
        return figures

    def draw(
        self,
        axes: Sequence[Any],
        shown: torch.Tensor,
        predicted: torch.Tensor,
        *,
        positions: torch.Tensor | None,
    ) -> None:
        """Draw the first frame beside its reconstruction."""
        del positions
        pairs = (("frame", shown[0].float() / 255), ("reconstructed", predicted[0]))
        for axis, (title, frame) in zip(axes, pairs, strict=True):
            axis.imshow(frame.clamp(0, 1).numpy())
            axis.set_title(title, fontsize=8)
            axis.axis("off")

    def remarks(self) -> list[str]:
        """Say what stands for the picture."""
        skip = self.options.frame_skip
        which = "every frame" if skip == 1 else f"one frame in {skip}"
        return [f"Picture: {which}, {self.options.width} x {self.options.height} pixels."]

    def save(
        self, stem: Path, shown: torch.Tensor, made: Mapping[str, torch.Tensor], *, tr: float
    ) -> list[Path]:
        """Write all as films at the rate at which frames were kept."""
        pixels = {
            what: (values.float().clamp(0, 1) * 255).round().to(torch.uint8)
            for what, values in made.items()
        }
        kept = min(frames.shape[1] for frames in pixels.values())
        paths = []
        for what, frames in {"shown": shown[:, :kept], **pixels}.items():
            path = stem.with_name(f"{stem.name}-{what}.mp4")
            clips.write_film(path, frames.flatten(0, 1).numpy(), frames.shape[1] / tr)
            paths.append(path)
        return paths


def _batched(frames: Iterator[NDArray[np.uint8]], size: int) -> Iterator[NDArray[np.uint8]]:
    """Stack ``size`` frames to a row."""
    while batch := list(itertools.islice(frames, size)):
        yield np.stack(batch)


def similarity(made: NDArray[np.float32], shown: NDArray[np.float32]) -> float:
    """Return the structural similarity of two frames (H, X, 3) of fractions, 1 for the same.

    Wang et al. 2004, IEEE Transactions on Image Processing 13:600, with that paper's window.
    """
    from skimage.metrics import structural_similarity

    return float(
        structural_similarity(  # type: ignore[no-untyped-call]
            made, shown, channel_axis=-1, data_range=1.0, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )
    )  # fmt: skip


class FrameEncoder(nn.Module):
    """One small CNN and a linear map of coarse colours for every frame, mixed over a TR.

    Parameters
    ----------
    shape : tuple of int
        (F, H, X, 3).
    mean, variance : float
        Of training pixels, as fractions of full brightness.
    channels, width : int
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self, shape: tuple[int, ...], *, mean: float, variance: float, channels: int, width: int
    ) -> None:
        super().__init__()
        frames, rows, columns, _ = shape
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(variance, dtype=torch.float32).sqrt())
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
        self.mix = nn.Parameter(_initial_mixes(frames))  # (2, F)
        self.join = nn.Linear(2 * width, width)

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        """Encode (B, W, F, H, X, 3) uint8 to (B, W, width)."""
        pixels = (video.flatten(0, 2).permute(0, 3, 1, 2).float() / 255 - self.mean) / self.scale
        coarse = functional.avg_pool2d(pixels, STRIDE, ceil_mode=True).flatten(1)
        encoded = self.layers(pixels) + self.grid(coarse)
        frames = encoded.unflatten(0, video.shape[:3])  # (B, W, F, width)
        mixed = torch.einsum("bwfd,mf->bwmd", frames, self.mix.to(frames.dtype))
        return self.join(mixed.flatten(2))


def _initial_mixes(frames: int) -> torch.Tensor:
    """Start at the mean over frames and at late minus early frames: (2, F)."""
    ramp = torch.linspace(-1, 1, frames) if frames > 1 else torch.zeros(1)
    return torch.stack([torch.ones(frames), ramp]) / frames


class FrameDecoder(nn.Module):
    """All frames of a TR: the training mean plus what the bottleneck says.

    Parameters
    ----------
    mean : Tensor, (H, X, 3)
        Training mean over frames, as fractions of full brightness.
    frames, bottleneck, channels, width : int
    """

    mean: torch.Tensor

    def __init__(
        self, mean: torch.Tensor, *, frames: int, bottleneck: int, channels: int, width: int
    ) -> None:
        super().__init__()
        rows, columns, _ = mean.shape
        self.size = (frames, rows, columns)
        self.cells = (-(-rows // STRIDE), -(-columns // STRIDE))
        self.register_buffer("mean", mean.clone())
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
        frames, rows, columns = self.size
        each = self.spread(self.each(bottleneck).unflatten(2, (frames, 8)))
        hidden = self.whole(bottleneck)[:, :, None] + each  # (B, L, F, width)
        pixels = self.layers(hidden.flatten(0, 2))[:, :, :rows, :columns]
        difference = pixels.permute(0, 2, 3, 1).unflatten(0, hidden.shape[:3])
        return difference + self.mean
