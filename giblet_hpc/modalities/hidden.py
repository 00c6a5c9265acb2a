"""Hidden states of trained networks that watch, listen or read: all layers, some of them seen."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.arrays import ArraySpec
from giblet_hpc.config.features import Pretrained
from giblet_hpc.config.io import own_fields
from giblet_hpc.config.study import ScanRun
from giblet_hpc.digests import Digests, code_digest
from giblet_hpc.files import sha256_json
from giblet_hpc.media import encoders, film, sheets, sound
from giblet_hpc.modalities.base import Note
from giblet_hpc.modalities.rows import film_inputs, write_in_order
from giblet_hpc.modalities.vectors import Vectors
from giblet_hpc.store import FeatureStore
from giblet_hpc.survey import Survey

SHARD_TRS = 64
USUAL = encoders.Size(25, 1024)
"""Of a large model."""


class Hidden(Vectors):
    """Rows of hidden states, (steps, layers, width) float16."""

    options: Pretrained

    def steps(self, tr: float) -> int:
        """Return the steps of a TR."""
        rate = float(getattr(self.options, "rate", 0.0))
        return max(1, round(rate * tr))

    def expected_shape(self, *, tr: float, fps: float) -> tuple[int, ...]:
        """Return (steps, layers, width) as of a large model."""
        del fps
        return (self.steps(tr), *USUAL)

    def columns(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Choose the layers; the steps' mean, or the steps beside each other."""
        chosen = rows[:, :, layers_at(self.options.layers, rows.shape[2])].astype(np.float32)
        if self.options.pool == "mean":
            chosen = chosen.mean(axis=1)
        return chosen.reshape(len(rows), -1)

    def array(self, survey: Survey, run: ScanRun, digests: Digests) -> ArraySpec:
        """Return a run's array of hidden states."""
        weights = digests.weights(self.options.weights, expected=self.options.weights_sha256)
        size = digests.remembered(f"size of {weights}", lambda: list(self._encoder().shape))
        tr = survey.config.study.tr
        return ArraySpec(
            self.array_name(run.name),
            (survey.lengths[run.name], self.steps(tr), *map(int, size)),
            "float16",
            {
                **self._inputs(survey, run, digests),
                f"features.{self.name}": own_fields(self.options),
                "weights": weights,
                "code": code_digest(encoders, film, sheets, sound, sys.modules[__name__]),
            },
            max_shard_rows=SHARD_TRS,
        )

    def _inputs(self, survey: Survey, run: ScanRun, digests: Digests) -> dict[str, Any]:
        """Return what the states depend on besides settings, weights and code."""
        return film_inputs(survey, run, digests)

    def write(
        self, survey: Survey, run: ScanRun, *, spec: ArraySpec, store: FeatureStore, note: Note
    ) -> None:
        """Write the missing shards of a run's hidden states, in one pass from the first of them."""
        write_in_order(
            lambda trs: self._states(survey, run, spec, trs), spec, store,
            label=f"{self.name} {run.name}", note=note,
        )  # fmt: skip

    def _encoder(self) -> Any:
        """Return the trained network."""
        raise NotImplementedError

    def _states(
        self, survey: Survey, run: ScanRun, spec: ArraySpec, trs: slice
    ) -> Iterator[NDArray[np.float16]]:
        """Yield the states of some TRs, one after the other: (steps, layers, width)."""
        raise NotImplementedError

    def remarks(self) -> list[str]:
        """Say which network, which layers."""
        chosen = self.options.layers
        depth = "all layers" if chosen == "all" else (
            "layers at relative depths " + ", ".join(f"{d:g}" for d in chosen)
        )  # fmt: skip
        return [f"{self.name}: hidden states of {self.options.model} ({depth}), standardised by "
                "the training TRs."]  # fmt: skip


def layers_at(depths: tuple[float, ...] | str, count: int) -> list[int]:
    """Return the layers at relative depths, each once, the first of them first.

    Examples
    --------
    >>> layers_at((0.0, 0.5, 1.0), 13), layers_at("all", 3)
    ([0, 6, 12], [0, 1, 2])
    """
    if isinstance(depths, str):
        return list(range(count))
    return sorted({round(depth * (count - 1)) for depth in depths})


class PictureHidden(Hidden):
    """States of an image model at the middle of each step, or of a video model at its end."""

    def _encoder(self) -> encoders.PictureStates:
        options: Any = self.options
        return encoders.PictureStates(options.model, options.patches)

    def _states(
        self, survey: Survey, run: ScanRun, spec: ArraySpec, trs: slice
    ) -> Iterator[NDArray[np.float16]]:
        """Yield TRs; pictures are computed a batch at a time."""
        assert run.film is not None
        study, options, encoder = survey.config.study, self.options, self._encoder()
        steps = spec.shape[1]
        count = (trs.stop - trs.start) * steps
        step = study.tr / steps
        start = run.film_start + trs.start * study.tr
        chosen = picture_times(encoder, options, start=start, step=step, count=count)
        frames = film.sample_frames(
            study.root / run.film, chosen.times, height=encoder.height, width=encoder.width
        )
        clips = encoders.clips_of(
            frames, encoder.frames, steps=count, every=chosen.every, stride=chosen.stride
        )
        held: list[NDArray[np.float16]] = []
        while batch := list(itertools.islice(clips, options.batch)):
            held += list(encoder(np.stack(batch)))
            while len(held) >= steps:
                yield np.stack(held[:steps])
                held = held[steps:]


class Clips(NamedTuple):
    """When pictures are taken, and which of them make up the clip of a step."""

    times: NDArray[np.float64]
    """Seconds in the film, evenly spaced."""
    every: int
    """New pictures of each step."""
    stride: int
    """Between the pictures of a clip."""


def picture_times(encoder: Any, options: Any, *, start: float, step: float, count: int) -> Clips:
    """Return when pictures are taken for some steps.

    An image model sees the middle of a step. A video model sees the film before the end of a step;
    its frames are as far apart as whole parts, or whole multiples, of a step allow.
    """
    if not encoder.clips:
        middles = np.arange(count, dtype=np.float64) + 0.5
        return Clips(np.asarray(start + middles * step, dtype=np.float64), 1, 1)
    wanted = options.clip_seconds / encoder.frames
    every = max(1, round(step / wanted))
    apart = step / every
    stride = max(1, round(wanted / apart))
    total = (encoder.frames - 1) * stride + 1 + (count - 1) * every
    last = start + step * count - apart / 2
    return Clips(last - np.arange(total)[::-1] * apart, every, stride)


class SoundHidden(Hidden):
    """Means of a sound model's states over each step."""

    def _encoder(self) -> encoders.SoundStates:
        options: Any = self.options
        return encoders.SoundStates(options.model, options.clip_seconds)

    def _states(
        self, survey: Survey, run: ScanRun, spec: ArraySpec, trs: slice
    ) -> Iterator[NDArray[np.float16]]:
        """Yield TRs; half of what is encoded at once was heard before, as context."""
        assert run.film is not None
        study, options, encoder = survey.config.study, self.options, self._encoder()
        seconds = min(float(getattr(options, "clip_seconds", 30.0)), encoder.longest)
        at_once = max(1, int(seconds / 2 / study.tr))
        context = max(0.0, seconds - at_once * study.tr)
        steps = spec.shape[1]
        # From the same places wherever the work begins: what is heard at once is the same.
        start = trs.start // at_once * at_once
        stop = min(-(-trs.stop // at_once) * at_once, spec.shape[0])
        heard = whole_sound(
            survey, run, rate=encoder.rate, start=start * study.tr - context,
            seconds=(stop - start) * study.tr + context,
        )  # fmt: skip
        for first in range(start, stop, at_once):
            count = min(at_once, stop - first)
            begin = (first - start) * study.tr
            end = begin + context + count * study.tr
            piece = heard[round(begin * encoder.rate) : round(end * encoder.rate)]
            edges = context + np.arange(count * steps + 1) * (study.tr / steps)
            states = encoder(piece, edges)
            rows = states.reshape(count, steps, *states.shape[1:])
            yield from rows[max(0, trs.start - first) : max(0, trs.stop - first)]


def whole_sound(
    survey: Survey, run: ScanRun, *, rate: int, start: float, seconds: float
) -> NDArray[np.float32]:
    """Return a stretch of a run's sound at some rate, silent where there is none.

    Parameters
    ----------
    survey : Survey
    run : ScanRun
    rate : int
        Samples a second.
    start, seconds : float
        From the run's first TR.
    """
    from scipy.signal import resample_poly

    assert run.film is not None
    chunks = sound.sound_chunks(
        survey.config.study.root / run.film, start=run.film_start + start, seconds=seconds,
        chunk=30.0, context=0.0, ahead=0,
    )  # fmt: skip
    heard = np.concatenate([part[skip : skip + size] for part, skip, size in chunks])
    if rate == sound.SAMPLE_RATE:
        return heard
    divisor = int(np.gcd(rate, sound.SAMPLE_RATE))
    turned = resample_poly(heard, rate // divisor, sound.SAMPLE_RATE // divisor)
    return np.asarray(turned, dtype=np.float32)


class WordHidden(Hidden):
    """Means of a language model's states over the words that begin in a TR; 0 without words."""

    def _encoder(self) -> encoders.WordStates:
        options: Any = self.options
        return encoders.WordStates(options.model, options.context_words)

    def _inputs(self, survey: Survey, run: ScanRun, digests: Digests) -> dict[str, Any]:
        del digests
        return {"segments": sha256_json([list(segment) for segment in survey.segments[run.name]])}

    def _states(
        self, survey: Survey, run: ScanRun, spec: ArraySpec, trs: slice
    ) -> Iterator[NDArray[np.float16]]:
        """Yield TRs."""
        words = words_in_order(survey, run)
        first = next((n for n, (tr, _) in enumerate(words) if tr >= trs.start), len(words))
        states = self._encoder()([word for _, word in words], since=first)
        flat = (state for part in states for state in part)
        waiting = iter([tr for tr, _ in words[first:]])
        tr = next(waiting, spec.shape[0])
        for row in range(trs.start, trs.stop):
            found = []
            while tr == row:
                found.append(next(flat).astype(np.float32))
                tr = next(waiting, spec.shape[0])
            empty = np.zeros(spec.shape[2:], np.float32)
            mean = np.mean(found, axis=0) if found else empty
            yield mean[None].astype(np.float16)


def words_in_order(survey: Survey, run: ScanRun) -> list[tuple[int, str]]:
    """Return every word of a run and the TR in which it begins.

    The words of a segment are spread evenly over it.
    """
    length = survey.lengths[run.name]
    found = []
    for segment in survey.segments[run.name]:
        texts = segment.text.split()
        for number, text in enumerate(texts):
            start = segment.start + (segment.stop - segment.start) * number / len(texts)
            if 0 <= start < length:
                found.append((start, text))
    return [(int(start), text) for start, text in sorted(found, key=lambda pair: pair[0])]
