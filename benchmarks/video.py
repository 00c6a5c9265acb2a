"""How fast a film becomes rows of pixels, beside ffmpeg that decodes and scales the same film.

    python benchmarks/video.py --ffmpeg $(which ffmpeg) [--seconds 60]

A film of noise over moving shapes, H.264, 1280 x 720, 25 frames a second, as frames of 90 x 160.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np

from giblet_hpc.media.film import sample_frames

HEIGHT, WIDTH, FPS = 720, 1280, 25


def make_film(path: Path, seconds: int) -> None:
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
        grain = random.integers(0, 24, (8, HEIGHT, WIDTH, 3), dtype=np.uint8)
        for number in range(seconds * FPS):
            wave = 100 + 80 * np.sin((x + 3 * number) / 90) * np.cos((y - 2 * number) / 70)
            picture = wave.astype(np.uint8)[..., None] + grain[number % len(grain)]
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ffmpeg", required=True)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as name:
        film = Path(name) / "film.mp4"
        make_film(film, given.seconds)
        times = np.arange(given.seconds * FPS) / FPS
        command = [given.ffmpeg, "-v", "error", "-i", str(film), "-vf", "scale=160:90:flags=area",
                   "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]  # fmt: skip
        for _ in range(given.repeats):
            started = time.perf_counter()
            frames = [frame.copy() for frame in sample_frames(film, times, height=90, width=160)]
            ours.append(time.perf_counter() - started)
            started = time.perf_counter()
            raw = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
            theirs.append(time.perf_counter() - started)
        other = np.frombuffer(raw, np.uint8).reshape(-1, 90, 160, 3)
        apart = np.abs(np.stack(frames).astype(int) - other[: len(frames)]).mean()
    found = {
        "cores": os.cpu_count(),
        "seconds_of_film": given.seconds,
        "frames_per_second": len(times) / sorted(ours)[len(ours) // 2],
        "ffmpeg_frames_per_second": len(times) / sorted(theirs)[len(theirs) // 2],
        "of_ffmpeg": sorted(theirs)[len(theirs) // 2] / sorted(ours)[len(ours) // 2],
        "mean_difference_of_255": float(apart),
    }
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
