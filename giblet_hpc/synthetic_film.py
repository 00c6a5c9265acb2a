"""The films of the synthetic study: H.264 pictures and AAC sound in an .mp4."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from giblet_hpc.files import atomic_path

HEIGHT, WIDTH = 90, 160
SOUND_RATE = 48_000


def write_film(
    path: Path,
    video: NDArray[np.float64],
    audio: NDArray[np.float64],
    *,
    fps: float,
    seed: int,
) -> None:
    """Draw and encode a film from its latent courses.

    Parameters
    ----------
    path : Path
        An .mp4 file.
    video : ndarray, shape (frames, 3)
        Brightness, warmth and position of a disk, 0 to 1.
    audio : ndarray, shape (frames, 3)
        Loudness of a voice, loudness of noise, and the voice's pitch, 0 to 1.
    fps : float
    seed : int
        Of grain and noise.
    """
    random = np.random.default_rng(seed)
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        picture = container.add_stream(
            "libx264",
            rate=Fraction(fps).limit_denominator(1001),
            options={"preset": "ultrafast", "crf": "26"},
        )
        picture.width, picture.height, picture.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = container.add_stream("aac", rate=SOUND_RATE, layout="stereo")
        blocks = sound_blocks(audio, fps=fps, random=random)
        for pixels in frames(video, random):
            container.mux(picture.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            block = av.AudioFrame.from_ndarray(next(blocks), format="fltp", layout="stereo")
            block.sample_rate = SOUND_RATE
            container.mux(sound.encode(block))
        container.mux(picture.encode())
        container.mux(sound.encode())


def frames(video: NDArray[np.float64], random: np.random.Generator) -> Iterator[NDArray[np.uint8]]:
    """Yield pictures: a shaded background, a moving disk, grain."""
    shade = 0.7 + 0.3 * np.linspace(0, 1, HEIGHT)[:, None, None]
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    grains = random.normal(0, 4, (8, HEIGHT, WIDTH, 1)).astype(np.int16)
    for number, (brightness, warmth, position) in enumerate(video):
        colour = np.array([0.4 + 0.6 * warmth, 0.6, 1.0 - 0.6 * warmth])
        background = (200 * brightness * shade * colour).astype(np.int16)
        pixels = background + grains[number % 8]
        height = HEIGHT * (0.5 + 0.2 * np.sin(number / 20))
        disk = (x - (0.1 + 0.8 * position) * WIDTH) ** 2 + (y - height) ** 2 < 18**2
        pixels[disk] = (250, 240, 60)
        yield np.clip(pixels, 0, 255).astype(np.uint8)


def sound_blocks(
    audio: NDArray[np.float64], *, fps: float, random: np.random.Generator
) -> Iterator[NDArray[np.float32]]:
    """Yield a frame's worth of stereo sound: a voice-like tone that comes and goes, and noise."""
    phase, done = 0.0, 0
    for number, (voice, noise, pitch) in enumerate(audio, start=1):
        count = round(number * SOUND_RATE / fps) - done
        time = (done + np.arange(count)) / SOUND_RATE
        step = 2 * np.pi * 200 * 2 ** (0.5 * pitch) / SOUND_RATE
        tone = np.sin(phase + step * np.arange(count))
        phase = (phase + step * count) % (2 * np.pi)
        envelope = 0.7 + 0.3 * np.sin(2 * np.pi * 4 * time)
        wave = 0.6 * voice * tone * envelope + 0.3 * noise * random.standard_normal(count)
        done += count
        yield np.stack([wave, wave]).astype(np.float32)
