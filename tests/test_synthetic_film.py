"""The films of the synthetic study are real files that show their courses."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from giblet_hpc.synthetic_film import HEIGHT, SOUND_RATE, WIDTH, write_film


def test_brightness_and_loudness_are_in_the_file(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    video = random.uniform(0.2, 1, (50, 3))
    audio = np.zeros((50, 3))
    audio[25:, 1] = 1.0
    write_film(tmp_path / "film.mp4", video, audio, fps=25.0, seed=1)
    with av.open(str(tmp_path / "film.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", WIDTH, HEIGHT)
        seen = [frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)]
    assert len(seen) == 50
    assert np.corrcoef(seen, video[:, 0])[0, 1] > 0.8
    with av.open(str(tmp_path / "film.mp4")) as container:
        assert container.streams.audio[0].rate == SOUND_RATE
        sound = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    half = len(sound) // 2
    assert sound[half + 4000 :].std() > 20 * max(sound[: half - 4000].std(), 1e-4)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_film(tmp_path / name, np.full((9, 3), 0.5), np.full((9, 3), 0.5), fps=25.0, seed=3)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
