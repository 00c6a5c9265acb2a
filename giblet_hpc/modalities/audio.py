"""Audio: EnCodec codes, looked up in the codec's own codebooks, or a log-mel spectrogram."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from giblet_hpc import timing
from giblet_hpc.arrays import ArraySpec
from giblet_hpc.config.features import UNTRAINED, AudioFeatures
from giblet_hpc.config.features import Modality as Section
from giblet_hpc.config.io import own_fields
from giblet_hpc.config.model import TemporalModel
from giblet_hpc.config.study import ScanRun
from giblet_hpc.digests import Digests, code_digest
from giblet_hpc.log import progress
from giblet_hpc.media import clips, sound
from giblet_hpc.modalities.base import (
    MEAN,
    PREVIOUS,
    Modality,
    Normalise,
    Note,
    save_array,
)
from giblet_hpc.modalities.moments import SMALLEST_VARIANCE, mean_and_variance
from giblet_hpc.modalities.rows import film_inputs
from giblet_hpc.modalities.sound_sums import (
    CODES,
    band_estimates,
    code_counts,
    code_frequencies,
    code_vectors,
    vector_sums,
)
from giblet_hpc.models.codes import CodeDecoder, CodeEncoder, ColumnEncoder
from giblet_hpc.models.dense import JOINT, block, scaled, stack
from giblet_hpc.models.vectors import VectorDecoder
from giblet_hpc.store import FeatureStore
from giblet_hpc.survey import Survey

SHARD_TRS = 128
VECTOR = 128
"""Width of what a code stands for."""
CODEBOOK_KBPS = 0.75
"""Bit rate of a codebook: 75 codes a second of 10 bits."""
MAX_CODE = CODES - 1.0
SHOWN_CODEBOOKS = 2


class Audio(Modality):
    """Rows of codes, (Q, C) int16, or of log-mel energies, (bands, C) float32."""

    options: AudioFeatures

    def __init__(self, name: str, options: Section) -> None:
        super().__init__(name, options)
        self.codes = self.options.kind == "codes"
        if self.codes:
            self.labels = {
                "error": "error (1 = training mean or code frequencies)",
                "top1": "codes: top-1 hits",
            }

    def expected_shape(self, *, tr: float, fps: float) -> tuple[int, ...]:
        """Return (Q, C), or bands by columns; films' frames are of no use here."""
        del fps
        _, count = timing.code_starts(trs=1, tr=tr, rate=sound.FRAME_RATE)
        codebooks = round(self.options.bandwidth_kbps / CODEBOOK_KBPS)
        return (codebooks if self.codes else self.options.mel_bands, count)

    def array(self, survey: Survey, run: ScanRun, digests: Digests) -> ArraySpec:
        """Return a run's array of codes or energies."""
        _, count = timing.code_starts(trs=1, tr=survey.config.study.tr, rate=sound.FRAME_RATE)
        rows, modules = self.options.mel_bands, [sound, timing.code_starts, Audio.write]
        if self.codes:
            # Takes seconds to import; only needed for codes.
            from giblet_hpc.media import codec

            rows = codec.codebooks(self.options)
            modules.append(codec)
        return ArraySpec(
            self.array_name(run.name),
            (survey.lengths[run.name], rows, count),
            "int16" if self.codes else "float32",
            {
                **film_inputs(survey, run, digests),
                f"features.{self.name}": own_fields(self.options),
                "weights": digests.weights(
                    self.options.weights, expected=self.options.weights_sha256
                ),
                "code": code_digest(*modules),
            },
            max_shard_rows=SHARD_TRS,
        )

    def write(
        self, survey: Survey, run: ScanRun, *, spec: ArraySpec, store: FeatureStore, note: Note
    ) -> None:
        """Write the missing shards of a run's codes or energies, chunk by chunk."""
        missing = store.missing(spec)
        if not missing:
            return
        assert run.film is not None
        trs, rows, count = spec.shape
        study, options = survey.config.study, self.options
        starts, _ = timing.code_starts(trs=trs, tr=study.tr, rate=sound.FRAME_RATE)
        spans = {s: (starts[spec.rows(s)][0], starts[spec.rows(s)][-1] + count) for s in missing}
        encoder = self._sound_encoder()
        chunks = sound.sound_chunks(
            study.root / run.film,
            start=run.film_start,
            seconds=(starts[-1] + count) / sound.FRAME_RATE,
            chunk=options.chunk_seconds,
            context=options.context_seconds,
            ahead=encoder.ahead,
        )
        columns = np.zeros((rows, starts[-1] + count), dtype=spec.dtype)
        total = -(-len(columns[0]) // max(1, round(options.chunk_seconds * sound.FRAME_RATE)))
        done = 0
        for heard, skip, size in progress(chunks, label=f"{self.name} {run.name}", total=total):
            width, first = size // sound.HOP, skip // sound.HOP
            if any(a < done + width and done < b for a, b in spans.values()):
                columns[:, done : done + width] = encoder(heard)[:, first : first + width]
            done += width
            note()
            for shard in [s for s, (_, end) in spans.items() if end <= done]:
                del spans[shard]
                window = starts[spec.rows(shard), None] + np.arange(count)[None]
                store.write_shard(spec, shard, columns[:, window].transpose(1, 0, 2))

    def _sound_encoder(self) -> sound.Encoder:
        """Return what turns sound into columns."""
        if not self.codes:
            return sound.LogMel(self.options.mel_bands)
        from giblet_hpc.media.codec import make_codec

        return make_codec(self.options)

    def shared_array(self, digests: Digests) -> ArraySpec | None:
        """Return the array of the vectors that the codes stand for, (Q, 1024, 128)."""
        if not self.codes:
            return None
        from giblet_hpc.media import codec

        return ArraySpec(
            f"shared/{self.name}",
            (codec.codebooks(self.options), codec.CODEBOOK_SIZE, codec.CODE_DIMENSIONS),
            "float32",
            {
                f"features.{self.name}": own_fields(self.options),
                "weights": digests.weights(
                    self.options.weights, expected=self.options.weights_sha256
                ),
                "code": code_digest(codec),
            },
        )

    def shared_values(self) -> NDArray[Any]:
        """Return the codec's codebooks."""
        from giblet_hpc.media.codec import make_codec

        return make_codec(self.options).codebooks()

    def sums(self, rows: NDArray[Any], shared: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
        """Count codes and add up what they stand for, or add up energies."""
        found = super().sums(rows, shared)
        if shared is not None:
            found |= {"counts": code_counts(rows)} | vector_sums(rows, shared)
        return found

    def settled(
        self, sums: Mapping[str, NDArray[Any]], shared: NDArray[Any] | None
    ) -> dict[str, NDArray[Any]]:
        """Return frequencies of codes and what they stand for, or the mean column."""
        if shared is None:
            return {**super().settled(sums, shared), **band_estimates(sums)}
        numbers = super().settled(sums, shared)
        vectors = {key: sums[f"vector_{key}"] for key in ("count", "total", "squares")}
        mean, spread = mean_and_variance(vectors)
        return {
            **code_frequencies(sums["counts"]),
            **numbers,
            "codebooks": shared,
            "vector_mean": mean.astype(np.float32),
            "vector_deviation": np.sqrt(np.maximum(spread, SMALLEST_VARIANCE)).astype(np.float32),
        }

    def placeholder_estimates(self, shape: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Return estimates of the right shapes; for codes with vectors that they stand for."""
        if not self.codes:
            return super().placeholder_estimates(shape)
        random = np.random.default_rng(0)
        rows = random.integers(0, CODES, (4, *shape)).astype(np.int16)
        return self.fit([rows], random.random((shape[0], CODES, VECTOR)).astype(np.float32))

    def encoder(self, options: TemporalModel) -> nn.Module:
        """Return the encoder of codes, or of energies."""
        if not self.codes:
            return ColumnEncoder(
                self.estimate("band_mean"), self.estimate("band_deviation"),
                hidden=options.code_width, width=options.width,
            )  # fmt: skip
        return CodeEncoder(
            self.estimate("codebooks"),
            mean=self.estimate("vector_mean"),
            deviation=self.estimate("vector_deviation"),
            code_width=options.code_width,
            width=options.width,
        )

    def decoder(self, options: TemporalModel, bottleneck: int) -> nn.Module:
        """Return the decoder to logits of codes, or to energies."""
        if not self.codes:
            return VectorDecoder(bottleneck, self.estimate("mean"))
        return CodeDecoder(
            self.estimate("log_probability"),
            frames=self.shape[1],
            bottleneck=bottleneck,
            width=options.code_width,
        )

    def positions(self, generator: torch.Generator | None) -> torch.Tensor | None:
        """Return the audio frames at which codes are reconstructed."""
        if not self.codes:
            return None
        total = self.shape[1]
        count = min(self.options.loss_frames, total)
        if generator is None:
            return torch.linspace(0, total - 1, count).long()
        return torch.randperm(total, generator=generator)[:count]

    def loss(
        self,
        predicted: torch.Tensor,
        rows: torch.Tensor,
        mask: torch.Tensor,
        *,
        positions: torch.Tensor | None,
        normalise: Normalise,
    ) -> torch.Tensor:
        """Return the cross-entropy of logits (B, L, n, Q, codes), else the squared error."""
        if not self._is_logits(predicted):
            return super().loss(predicted, rows, mask, positions=positions, normalise=normalise)
        wanted = rows[..., positions].transpose(2, 3).long()  # (B, L, n, Q)
        kept = predicted[mask].float().flatten(0, 2)
        cost = functional.cross_entropy(kept, wanted[mask].flatten())
        return cost if normalise == "none" else cost / float(self.estimates["entropy"])

    def cost_of_mean(self, variance: float, normalise: Normalise, *, dense: bool) -> float:
        """Return what codes cost that are guessed evenly: nats, or as many times that."""
        if not self.codes or dense:
            return super().cost_of_mean(variance, normalise, dense=dense)
        return math.log(CODES) if normalise == "none" else 1.0

    def _is_logits(self, predicted: torch.Tensor) -> bool:
        """The dense model predicts the codes' numbers instead."""
        return self.codes and predicted.dim() == 5

    def dense_encoder(self, width: float) -> nn.Module | None:
        """Return the original's encoder of the codes' numbers."""
        if not self.codes:
            return None
        first, second = scaled([512, 256], width)
        return nn.Sequential(
            *block(int(np.prod(self.shape)), first, 0.3, relu=False),
            nn.ReLU(),
            *block(first, second, 0.2, relu=False),
            nn.ReLU(),
        )

    def dense_decoder(self, width: float) -> nn.Module:
        """Return the original's decoder to the codes' numbers, as fractions of the largest."""
        hidden = scaled([JOINT, 2048, 2048], width)
        return nn.Sequential(
            *stack(hidden, [0.3, 0.3]),
            nn.Linear(hidden[-1], int(np.prod(self.shape))),
            nn.Sigmoid(),
        )

    def dense_output(self, flat: torch.Tensor) -> torch.Tensor:
        """Return the codes' numbers, (N, 1, Q, C)."""
        return (flat * MAX_CODE).reshape(len(flat), 1, *self.shape)

    def baseline_features(
        self, inputs: NDArray[Any], shared: NDArray[Any] | None
    ) -> NDArray[np.float32]:
        """Return mean and deviation over a TR of what codes stand for, or the mean column."""
        if shared is None:
            return np.asarray(inputs.mean(axis=2), dtype=np.float32)
        rows = []
        for row in inputs:
            vectors = code_vectors(row[None], shared)[0]
            rows.append(np.concatenate([vectors.mean(axis=0), vectors.std(axis=0)]))
        return np.stack(rows)

    def scores(
        self,
        predicted: torch.Tensor,
        rows: torch.Tensor,
        mask: torch.Tensor,
        *,
        positions: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        """Return the error and, for logits, the share of codes that are hit."""
        figures = super().scores(predicted, rows, mask, positions=positions)
        if not self._is_logits(predicted):
            return figures
        figures["top1"] = self._hits(predicted.argmax(-1), rows[..., positions], mask)
        return figures

    def _hits(self, guess: torch.Tensor, wanted: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the share of codes (B, L, Q, n) that a guess (B, L, n, Q) hits."""
        return (guess == wanted.transpose(2, 3)).double().mean((2, 3))[mask].mean()

    def control_scores(
        self,
        rows: torch.Tensor,
        before: torch.Tensor,
        mask: torch.Tensor,
        *,
        positions: torch.Tensor | None,
        made: torch.Tensor,
    ) -> dict[str, dict[str, torch.Tensor]]:
        """Return figures of the most frequent codes, and of those of the TR before."""
        if not self._is_logits(made):
            return super().control_scores(rows, before, mask, positions=positions, made=made)
        usual = self.estimate("log_probability").to(rows.device)
        logits = usual.expand(*rows.shape[:2], made.shape[2], *usual.shape)
        return {
            MEAN: self.scores(logits, rows, mask, positions=positions),
            PREVIOUS: {
                "top1": self._hits(
                    before[..., positions].transpose(2, 3), rows[..., positions], mask
                )
            },
        }

    def draw(
        self,
        axes: Sequence[Any],
        shown: torch.Tensor,
        predicted: torch.Tensor,
        *,
        positions: torch.Tensor | None,
    ) -> None:
        """Draw the first codebooks, or mel bands, and their reconstruction dashed."""
        if predicted.dim() == 3:  # logits (n, Q, codes)
            assert positions is not None
            predicted, shown = predicted.argmax(-1).T, shown[:, positions.cpu()]
        for number in range(min(SHOWN_CODEBOOKS, len(shown))):
            axes[0].plot(shown[number], lw=0.8, color=f"C{number}")
            axes[0].plot(predicted[number], lw=0.8, ls="--", color=f"C{number}")
        axes[0].set_title(f"{self.name} (dashed: reconstructed)", fontsize=8)

    def whole_positions(self) -> torch.Tensor | None:
        """Return all columns of codes."""
        return torch.arange(self.shape[1]) if self.codes else None

    def save(
        self, stem: Path, shown: torch.Tensor, made: Mapping[str, torch.Tensor], *, tr: float
    ) -> list[Path]:
        """Write all through the codec's decoder as sound, beside the codes themselves."""
        if not self.codes:
            return super().save(stem, shown, made, tr=tr)
        from giblet_hpc.media.codec import make_codec

        codec, paths = make_codec(self.options), []
        every = {what: _codes(values).reshape(shown.shape) for what, values in made.items()}
        for what, codes in {"shown": shown, **every}.items():
            numbers = codes.transpose(0, 1).flatten(1).to(torch.int16).numpy()
            paths.append(stem.with_name(f"{stem.name}-{what}.wav"))
            clips.write_sound(paths[-1], codec.decode(numbers), sound.SAMPLE_RATE)
            paths.append(save_array(stem, f"{what}-codes", numbers))
        return paths

    def remarks(self) -> list[str]:
        """Say what stands for the sound."""
        if not self.codes:
            return [f"Sound: {self.options.mel_bands} log-mel bands."]
        rate, codec = f"{self.options.bandwidth_kbps:g} kbps", self.options.codec
        trained = f"Sound: EnCodec codes [@defossez2022], {rate} ({codec})."
        return ["Sound: codes of an untrained codec." if codec == UNTRAINED else trained]


def _codes(made: torch.Tensor) -> torch.Tensor:
    """Return the codes (L, Q, C) that logits (L, C, Q, codes) or numbers stand for."""
    if made.dim() == 4:
        return made.argmax(-1).transpose(1, 2)
    return made.float().round().clamp(0, MAX_CODE)
