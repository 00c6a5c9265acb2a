"""Film and sound files of what a model reconstructs."""

from __future__ import annotations

import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from giblet_hpc.files import write_with

SHORTEST = 240
"""Pixels of a film's shorter side: small frames are enlarged, so that they can be seen."""


def write_film(path: Path, frames: NDArray[np.uint8], rate: float) -> None:
    """Write frames as H.264, which browsers play.

    Parameters
    ----------
    path : Path
        `.mp4`.
    frames : ndarray, shape (n, height, width, 3), RGB
    rate : float
        Frames a second.
    """
    times = max(1, -(-SHORTEST // min(frames.shape[1:3])))
    large = frames.repeat(times, 1).repeat(times, 2)
    large = large[:, : large.shape[1] // 2 * 2, : large.shape[2] // 2 * 2]

    def write(handle: object) -> None:
        with av.open(handle, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000))
            stream.height, stream.width = large.shape[1:3]
            stream.pix_fmt, stream.options = "yuv420p", {"crf": "18"}
            for number, pixels in enumerate(large):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))

    write_with(path, write)


def write_sound(path: Path, samples: NDArray[np.floating], rate: int) -> None:
    """Write mono sound, 16 bits a sample.

    Parameters
    ----------
    path : Path
        `.wav`.
    samples : ndarray, shape (n,)
        From -1 to 1; what is beyond is cut.
    rate : int
        Samples a second.
    """
    numbers = np.round(np.clip(samples, -1, 1) * 32767).astype("<i2")

    def write(handle: object) -> None:
        with wave.open(handle, "wb") as sound:  # type: ignore[call-overload]
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(rate)
            sound.writeframes(numbers.tobytes())

    write_with(path, write)
