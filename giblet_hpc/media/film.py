"""Frames of a film, taken by timestamp in one sequential decode."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from giblet_hpc.errors import DataError
from giblet_hpc.files import require_file

MISSING_SECONDS = 2.0
"""How much earlier than its file says a film may end before it is taken for cut off."""


class Film(NamedTuple):
    """What a film's header says."""

    fps: float
    """Average frames a second; 0 when there is no picture."""
    seconds: float
    """Length of the picture."""
    has_audio: bool
    """Whether there is a sound track."""


def probe(path: Path) -> Film:
    """Read a film's header.

    Raises
    ------
    DataError
        When the file is missing, is no film, or has no picture.
    """
    with open_film(path) as container:
        if not container.streams.video:
            raise DataError(f"{path} has no picture", hint="point study.runs.film to a video file")
        stream = container.streams.video[0]
        if stream.duration is not None and stream.time_base is not None:
            seconds = float(stream.duration * stream.time_base)
        else:
            seconds = (container.duration or 0) / 1e6
        rate = stream.average_rate or stream.guessed_rate
        if not rate or seconds <= 0:
            raise DataError(
                f"{path} does not state its frame rate or its length",
                hint="rewrite it with: ffmpeg -i IN -c copy OUT.mkv",
            )
        return Film(float(rate), seconds, bool(container.streams.audio))


def open_film(path: Path) -> Any:
    """Open a film's container.

    Raises
    ------
    DataError
        When the file is missing or is no film.
    """
    require_file(path, what="film")
    try:
        return av.open(str(path))
    except av.error.FFmpegError as error:
        raise DataError(
            f"cannot read {path} as a film: {error.strerror}",
            hint="check the file with: ffprobe FILE",
        ) from None


def sample_frames(
    path: Path, times: NDArray[np.float64], *, height: int, width: int
) -> Iterator[NDArray[np.uint8]]:
    """Yield what is on screen at each of ``times``, decoding the film once from its start.

    Handles any constant or variable frame rate, since it goes by presentation timestamps.
    Moments before the film's start are black; after its end the last frame stays.

    Parameters
    ----------
    path : Path
        Film.
    times : ndarray, shape (n,)
        Seconds from the film's start, ascending.
    height, width : int
        Size to which a frame is area-averaged.

    Yields
    ------
    ndarray, shape (height, width, 3), uint8 RGB

    Raises
    ------
    DataError
        When the picture cannot be decoded.
    """
    shown = np.zeros((height, width, 3), dtype=np.uint8)
    pending: Any = None
    position = 0
    seconds = 0.0
    for frame, seconds in _decoded(path):
        before = position
        while position < len(times) and times[position] < seconds:
            if pending is not None:
                shown, pending = _resized(pending, height, width), None
            yield shown
            position += 1
        if position == len(times):
            return
        assert position >= before
        pending = frame
    _check_end(path, seconds, wanted=float(times[-1]))
    if pending is not None:
        shown = _resized(pending, height, width)
    for _ in range(position, len(times)):
        yield shown


def frames_at(
    path: Path, times: NDArray[np.float64], *, height: int, width: int
) -> Iterator[NDArray[np.uint8]]:
    """Yield what is on screen near each of ``times``, skipping what lies between.

    For a look at a film: where a film can be entered only at some frames, the next one is taken.

    Parameters
    ----------
    path, times, height, width
        As of `sample_frames`.
    """
    with open_film(path) as container:
        stream = container.streams.video[0]
        start = float((stream.start_time or 0) * stream.time_base)
        shown: Any = None
        for seconds in times:
            try:
                container.seek(int((seconds + start) / stream.time_base), stream=stream)
                for frame in container.decode(stream):
                    shown = frame
                    if frame.time is not None and frame.time - start >= seconds:
                        break
            except av.error.FFmpegError as error:
                raise DataError(
                    f"{path}: the picture cannot be decoded at {seconds:.1f} s: {error.strerror}",
                    hint="copy the file again, or rewrite it with ffmpeg",
                ) from None
            if shown is None:
                raise DataError(f"{path}: no picture at {seconds:.1f} s", hint="ffprobe FILE")
            yield _resized(shown, height, width)


def _check_end(path: Path, seconds: float, *, wanted: float) -> None:
    """Refuse a film whose last frame comes long before the end that its file promises."""
    if seconds > wanted - MISSING_SECONDS:
        return
    promised = probe(path).seconds
    if seconds < promised - MISSING_SECONDS:
        raise DataError(
            f"{path}: the picture ends after {seconds:.1f} s; the file says that it lasts "
            f"{promised:.1f} s",
            hint="it was cut off, perhaps while it was copied: copy it again",
        )


def _decoded(path: Path) -> Iterator[tuple[Any, float]]:
    with open_film(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        start = float((stream.start_time or 0) * stream.time_base)
        seconds = 0.0
        try:
            for frame in container.decode(stream):
                if frame.time is None:
                    continue
                seconds = frame.time - start
                yield frame, seconds
        except av.error.FFmpegError as error:
            raise DataError(
                f"{path}: the picture cannot be decoded after {seconds:.1f} s: {error.strerror}",
                hint="copy the file again, or rewrite it with ffmpeg",
            ) from None


def _resized(frame: Any, height: int, width: int) -> NDArray[np.uint8]:
    small = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA")
    pixels: NDArray[np.uint8] = small.to_ndarray()
    return pixels
