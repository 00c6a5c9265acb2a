"""The sound of a film: EnCodec codes or log-mel energies, in chunks of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from giblet_hpc.errors import DataError
from giblet_hpc.media.film import open_film, origin, sound_of, stream_end

SAMPLE_RATE = 24_000
HOP = 320
FRAME_RATE = SAMPLE_RATE / HOP
MEL_WINDOW = 1024
JUMP_SECONDS = 0.1
"""A time that differs by more from the samples counted so far is a gap, or a wrong stamp."""
MISSING_SECONDS = 5.0
"""How much earlier than its file says a sound track may end before it is taken for cut off."""


class Encoder(Protocol):
    """Turns sound into columns at 75 a second."""

    rows: int
    """Codebooks, or mel bands."""
    dtype: str
    """numpy name of the type of the values."""
    ahead: int
    """Samples after a chunk that its last columns depend on."""

    def __call__(self, sound: NDArray[np.float32]) -> NDArray[Any]:
        """Encode ``sound`` of shape (samples,) to shape (rows, samples / 320)."""
        ...


def sound_blocks(path: Path) -> Iterator[tuple[float, NDArray[np.float32]]]:
    """Decode the sound track that players play to 24 kHz mono, the mean of its channels.

    Yields
    ------
    seconds : float
        Start of the block after the file's start.
    samples : ndarray, shape (n,), float32 in [-1, 1]

    Raises
    ------
    DataError
        When there is no sound or it cannot be decoded.
    """
    with open_film(path) as container:
        stream = sound_of(container)
        if stream is None:
            raise DataError(f"{path} has no sound track", hint="leave out features.audio")
        start = origin(path)
        resampler = av.AudioResampler(format="fltp", rate=SAMPLE_RATE)
        clock: float | None = None
        try:
            for frame, stamp in _confirmed(container.decode(stream)):
                if clock is None or (stamp is not None and abs(stamp - clock) > JUMP_SECONDS):
                    clock = start if stamp is None else stamp
                for part in resampler.resample(frame):
                    samples = part.to_ndarray().mean(axis=0, dtype=np.float32)
                    yield clock - start, samples
                    clock += len(samples) / SAMPLE_RATE
            for part in resampler.resample(None):
                yield (clock or start) - start, part.to_ndarray().mean(axis=0, dtype=np.float32)
        except av.error.FFmpegError as error:
            raise DataError(f"{path}: the sound cannot be decoded: {error.strerror}") from None


def _confirmed(frames: Iterator[Any]) -> Iterator[tuple[Any, float | None]]:
    """Yield frames and their time in seconds; None where the next frame does not follow on it.

    A gap in the sound moves all that comes after it; a single wild stamp moves nothing.
    """
    previous = None
    for frame in frames:
        if previous is not None:
            yield previous, _stamp(previous, frame)
        previous = frame
    if previous is not None:
        yield previous, None


def _stamp(frame: Any, following: Any) -> float | None:
    if frame.time is None or following.time is None:
        return None
    end = float(frame.time) + frame.samples / frame.sample_rate
    return float(frame.time) if abs(following.time - end) < JUMP_SECONDS else None


def sound_chunks(
    path: Path, *, start: float, seconds: float, chunk: float, context: float, ahead: int
) -> Iterator[tuple[NDArray[np.float32], int, int]]:
    """Cut a stretch of sound into chunks, each with what is heard before and after it.

    Parameters
    ----------
    path : Path
        Film.
    start, seconds : float
        Where the stretch begins in the film and its length. Outside the film it is silent.
    chunk, context : float
        Seconds of a chunk and of what precedes it; rounded to whole code frames.
    ahead : int
        Samples after a chunk that are wanted too.

    Yields
    ------
    sound : ndarray, shape (samples,)
        Context, chunk, and what follows.
    skip : int
        Leading samples that are context.
    size : int
        Samples of the chunk itself.
    """
    total = round(seconds * FRAME_RATE) * HOP
    size = max(1, round(chunk * FRAME_RATE)) * HOP
    keep = round(context * FRAME_RATE) * HOP
    before = np.zeros(0, dtype=np.float32)
    buffer = np.zeros(0, dtype=np.float32)
    done = 0
    for block in _continuous(path, start, total):
        buffer = np.concatenate([buffer, block])
        while len(buffer) >= size + ahead or (done + len(buffer) == total and len(buffer)):
            current, buffer = buffer[:size], buffer[size:]
            yield np.concatenate([before, current, buffer[:ahead]]), len(before), len(current)
            before = np.concatenate([before, current])[-keep:] if keep else before
            done += len(current)


def _continuous(path: Path, start: float, total: int) -> Iterator[NDArray[np.float32]]:
    """Yield exactly ``total`` samples from ``start``, silence where the film has none."""
    written = 0
    for seconds, block in sound_blocks(path):
        samples = block
        offset = round((seconds - start) * SAMPLE_RATE)
        # A timestamp is exact to about a millisecond; smaller steps are not gaps.
        if written and abs(offset - written) < SAMPLE_RATE // 100:
            offset = written
        if offset < written:
            samples = block[written - offset :]
            offset = written
        gap = min(offset, total) - written
        piece = samples[: max(0, total - written - gap)]
        if gap > 0 or len(piece):
            yield np.concatenate([np.zeros(max(0, gap), np.float32), piece])
            written += max(0, gap) + len(piece)
        if written >= total:
            return
    heard = written / SAMPLE_RATE + start
    promised = min(total / SAMPLE_RATE + start, _length(path))
    if heard < promised - MISSING_SECONDS:
        raise DataError(
            f"{path}: the sound ends after {heard:.1f} s; the file says that it lasts "
            f"{_length(path):.1f} s",
            hint="it was cut off, perhaps while it was copied: copy it again; where the sound "
            "really is shorter, pad it (ffmpeg -af apad -shortest)",
        )
    yield np.zeros(total - written, dtype=np.float32)


def _length(path: Path) -> float:
    """Return when a film's sound ends by what its header says, in seconds."""
    with open_film(path) as container:
        return stream_end(container, sound_of(container)) - origin(path)


class LogMel:
    """Log10 of mel-band energies (Slaney bands, 0 to 12 kHz), 75 columns a second.

    Parameters
    ----------
    bands : int
        Number of bands.
    """

    dtype = "float32"
    ahead = MEL_WINDOW

    def __init__(self, bands: int) -> None:
        from transformers.audio_utils import mel_filter_bank, window_function

        self.rows = bands
        self._window = window_function(MEL_WINDOW, "hann")
        self._filters = mel_filter_bank(
            num_frequency_bins=MEL_WINDOW // 2 + 1,
            num_mel_filters=bands,
            min_frequency=0.0,
            max_frequency=SAMPLE_RATE / 2,
            sampling_rate=SAMPLE_RATE,
            norm="slaney",
            mel_scale="slaney",
        )

    def __call__(self, sound: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return energies of shape (bands, samples / 320)."""
        from transformers.audio_utils import spectrogram

        padded = np.pad(sound, (MEL_WINDOW // 2, MEL_WINDOW // 2))
        energies = spectrogram(
            padded,
            self._window,
            frame_length=MEL_WINDOW,
            hop_length=HOP,
            power=2.0,
            center=False,
            mel_filters=self._filters,
            mel_floor=1e-10,
            log_mel="log10",
        )
        return np.asarray(energies[:, : len(sound) // HOP], dtype=np.float32)
