from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from giblet_hpc import timing
from giblet_hpc.errors import DataError
from giblet_hpc.media import film
from tests.films import write_film

LEVELS = 24


def write_numbered_film(path: Path, pts: list[int], time_base: Fraction) -> None:
    """Write H.264 whose n-th frame has brightness n mod 24 in steps of 10."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "10", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = time_base
        stream.codec_context.time_base = time_base
        for number, stamp in enumerate(pts):
            level = 10 * (number % LEVELS) + 5
            frame = av.VideoFrame.from_ndarray(
                np.full((48, 64, 3), level, np.uint8), format="rgb24"
            )
            frame.pts, frame.time_base = stamp, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def numbers_seen(path: Path, times: np.ndarray) -> np.ndarray:
    frames = film.sample_frames(path, times, height=12, width=16)
    return np.array([round((frame.mean() - 5) / 10) for frame in frames])


@pytest.mark.parametrize("rate", ["24000/1001", "25", "30000/1001"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_frames_at_any_rate(rate: str, suffix: str, tmp_path: Path) -> None:
    fps = Fraction(rate)
    count = int(8 * fps)
    path = tmp_path / f"film.{suffix}"
    write_numbered_film(path, list(range(count)), 1 / fps)
    header = film.probe(path)
    assert header.seconds == pytest.approx(8, abs=0.1)
    times = timing.frame_times(trs=4, tr=2.0, fps=float(fps), skip=1).reshape(-1)
    times = times[times < (count - 1) / float(fps)]
    # Matroska rounds timestamps to a millisecond.
    times = times[np.abs(times * float(fps) - np.round(times * float(fps))) > 0.05]
    expected = np.floor(times * float(fps)).astype(int) % LEVELS
    np.testing.assert_array_equal(numbers_seen(path, times), expected)


def test_variable_rate_goes_by_timestamps(tmp_path: Path) -> None:
    stamps = np.cumsum([0, *np.random.default_rng(0).integers(20, 120, 59)])
    path = tmp_path / "variable.mp4"
    write_numbered_film(path, stamps.tolist(), Fraction(1, 1000))
    times = np.arange(0.001, stamps[-1] / 1000, 0.01)
    times = times[np.abs(times[:, None] * 1000 - stamps[None]).min(axis=1) > 2]
    expected = (np.searchsorted(stamps, times * 1000, side="right") - 1) % LEVELS
    np.testing.assert_array_equal(numbers_seen(path, times), expected)


def test_one_sequential_decode_without_a_seek(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "film.mp4"
    write_numbered_film(path, list(range(100)), Fraction(1, 25))
    opened = []
    real = film.open_film
    monkeypatch.setattr(film, "open_film", lambda p: opened.append(p) or real(p))
    assert len(list(film.sample_frames(path, np.arange(0, 4, 0.02), height=6, width=8))) == 200
    assert len(opened) == 1


def test_before_the_film_is_black_and_after_it_the_last_frame_stays(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    write_numbered_film(path, list(range(20)), Fraction(1, 25))
    frames = list(film.sample_frames(path, np.array([-1.0, 0.01, 5.0]), height=6, width=8))
    assert frames[0].max() == 0
    assert [round((f.mean() - 5) / 10) for f in frames[1:]] == [0, 19]


def test_frames_are_area_averages(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:, ::2] = 200
    write_film(path, np.stack([pixels] * 10), fps=25)
    (frame,) = film.sample_frames(path, np.array([0.2]), height=6, width=8)
    assert np.abs(frame.astype(int) - 100).max() < 12


def test_bad_films_are_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="film not found"):
        film.probe(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("this is no film")
    with pytest.raises(DataError, match="cannot read .* as a film"):
        film.probe(tmp_path / "text.mp4")


def test_a_film_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    """Half of a Matroska file opens, and says that it is whole."""
    pixels = np.random.default_rng(0).integers(0, 255, (200, 48, 64, 3)).astype(np.uint8)
    write_film(tmp_path / "whole.mkv", pixels, fps=10)
    content = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "half.mkv").write_bytes(content[: len(content) // 2])
    times = (np.arange(190) + 0.5) / 10
    assert len(list(film.sample_frames(tmp_path / "whole.mkv", times, height=4, width=4))) == 190
    assert film.probe(tmp_path / "half.mkv").seconds > 19
    with pytest.raises(DataError, match=r"half.mkv: the picture ends after \d+\.\d s; .* 20\.0 s"):
        list(film.sample_frames(tmp_path / "half.mkv", times, height=4, width=4))
