"""Films and sounds that are written can be read, and show what was written."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np
import pytest

from giblet_hpc.media import clips


@pytest.mark.parametrize("rate", [6.25, 25.0, 3.3333])
def test_a_film_is_what_was_written(tmp_path: Path, rate: float) -> None:
    levels = np.array([20, 120, 240, 60, 200], np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (5, 45, 81, 3))
    clips.write_film(tmp_path / "x.mp4", frames, rate)
    with av.open(str(tmp_path / "x.mp4")) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate or 0) == pytest.approx(rate, rel=1e-3)
        assert (stream.height, stream.width) == (270, 486)
        assert stream.codec_context.name == "h264"
        shown = [frame.to_ndarray(format="rgb24").mean() for frame in container.decode(stream)]
    assert shown == pytest.approx(levels.astype(float), abs=4)
    assert list(tmp_path.iterdir()) == [tmp_path / "x.mp4"]


def test_a_sound_is_what_was_written(tmp_path: Path) -> None:
    samples = np.sin(np.arange(4800) / 10) * 1.5
    clips.write_sound(tmp_path / "x.wav", samples, 24_000)
    with wave.open(str(tmp_path / "x.wav"), "rb") as sound:
        assert (sound.getnchannels(), sound.getframerate()) == (1, 24_000)
        read = np.frombuffer(sound.readframes(10_000), "<i2") / 32767
    assert read == pytest.approx(np.clip(samples, -1, 1), abs=1e-4)
