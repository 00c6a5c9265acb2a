"""Frames of a film, taken by timestamp in one sequential decode."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from giblet_hpc.errors import DataError
from giblet_hpc.files import require_file

ATTACHED_PICTURE = 0x400
"""FFmpeg's AV_DISPOSITION_ATTACHED_PIC."""
FIRST_FRAMES = 4
"""Of a stream, by whose times its start is known."""
BACKWARD_SECONDS = 0.5
"""A picture this much later than the next one has a wrong time."""
MISSING_SECONDS = 2.0
"""How much earlier than its file says a film may end before it is taken for cut off."""


class Film(NamedTuple):
    """What the header of a film, or of a sound file, says."""

    fps: float
    """Average frames a second; 0 when there is no picture."""
    seconds: float
    """From the file's start to the end of its picture; without a picture, of its sound."""
    has_audio: bool
    """Whether there is a sound track."""

    @property
    def has_picture(self) -> bool:
        """Whether there is a picture that moves; a cover is none."""
        return self.fps > 0


def probe(path: Path) -> Film:
    """Read the header of a film or of a sound file.

    Raises
    ------
    DataError
        When the file is missing, holds neither picture nor sound, or does not state its length.
    """
    with open_film(path) as container:
        picture, sound = picture_of(container), sound_of(container)
        stream = picture or sound
        if stream is None:
            raise DataError(
                f"{path} holds neither picture nor sound",
                hint="point study.runs.film to a video or sound file",
            )
        rate = (stream.average_rate or stream.guessed_rate) if picture else 0
        seconds = stream_end(container, stream) - origin(path)
        if (picture and not rate) or seconds <= 0:
            raise DataError(
                f"{path} does not state its frame rate or its length",
                hint="rewrite it with: ffmpeg -i IN -c copy OUT.mkv",
            )
        return Film(float(rate), seconds, sound is not None)


def picture_of(container: Any) -> Any:
    """Return the stream of the picture that players show; None where there is only a cover."""
    real = [s for s in container.streams.video if not int(s.disposition) & ATTACHED_PICTURE]
    best = container.streams.best("video")
    return best if best in real else (real[0] if real else None)


def sound_of(container: Any) -> Any:
    """Return the stream of the sound that players play; None where there is none."""
    streams = container.streams.audio
    return container.streams.best("audio") or (streams[0] if streams else None)


def origin(path: Path) -> float:
    """Return the timestamp that is time 0, in seconds: of the first picture or sound to come.

    One clock for both, as players have it: a picture that begins later than its sound stays later.
    """
    starts = []
    for choose in (picture_of, sound_of):
        with open_film(path) as container, contextlib.suppress(av.error.FFmpegError):
            if (stream := choose(container)) is None:
                continue
            frames = itertools.islice(container.decode(stream), FIRST_FRAMES)
            times = [frame.time for frame in frames if frame.time is not None]
            # A single stamp that lies in the far future is a fault of the file.
            starts += [min(times)] if times else []
    return min(starts, default=0.0)


def stream_end(container: Any, stream: Any) -> float:
    """Return the timestamp at which a stream ends, as its header says."""
    if stream.duration is not None and stream.time_base is not None:
        return float((stream.duration + (stream.start_time or 0)) * stream.time_base)
    return float(container.duration or 0) / av.time_base


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
        stream = _require_picture(path, container)
        start = origin(path)
        shown: Any = None
        for seconds in times:
            try:
                container.seek(int(max(0.0, seconds + start) / stream.time_base), stream=stream)
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


def _require_picture(path: Path, container: Any) -> Any:
    stream = picture_of(container)
    if stream is None:
        raise DataError(f"{path} has no picture", hint="leave out features.video")
    return stream


def _decoded(path: Path) -> Iterator[tuple[Any, float]]:
    """Yield pictures and when they appear, in seconds from the file's start."""
    with open_film(path) as container:
        stream = _require_picture(path, container)
        start = origin(path)
        stream.thread_type = "AUTO"
        step = 1.0 / float(stream.average_rate or stream.guessed_rate or 25)
        seconds = 0.0
        try:
            timed = ((f, f.time - start) for f in container.decode(stream) if f.time is not None)
            for (frame, found), (_, following) in itertools.pairwise(
                itertools.chain(timed, [(None, float("inf"))])
            ):
                wrong = found > following + BACKWARD_SECONDS
                seconds = seconds + step if wrong else found
                yield frame, seconds
        except av.error.FFmpegError as error:
            raise DataError(
                f"{path}: the picture cannot be decoded after {seconds:.1f} s: {error.strerror}",
                hint="copy the file again, or rewrite it with ffmpeg",
            ) from None


def _resized(frame: Any, height: int, width: int) -> NDArray[np.uint8]:
    """Return a picture as it is shown: turned as the file says, area-averaged to a size."""
    quarters = round(frame.rotation / 90) % 4
    lying = quarters % 2 == 1
    small = frame.reformat(
        width=height if lying else width, height=width if lying else height, format="rgb24",
        interpolation="AREA",
    )  # fmt: skip
    pixels: NDArray[np.uint8] = small.to_ndarray()
    return np.ascontiguousarray(np.rot90(pixels, quarters)) if quarters else pixels
