from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from giblet_hpc import timing
from giblet_hpc.errors import DataError
from giblet_hpc.media import film, sound
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
    assert len(opened) == 3, "two looks at the begin, then one pass"


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


CLOCKWISE = [0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000]
"""A track header's matrix of a picture to be turned clockwise by a quarter, as phones write it."""


def test_a_picture_is_stored_as_it_is_shown(tmp_path: Path) -> None:
    """A picture that is bright on its left is bright at its top once it is turned clockwise."""
    frames = np.zeros((20, 48, 64, 3), np.uint8)
    frames[:, :, :32] = 250
    path = tmp_path / "phone.mp4"
    write_film(path, frames, fps=10)
    content = path.read_bytes()
    place = content.index(b"tkhd") + 4 + 40
    matrix = b"".join(value.to_bytes(4, "big", signed=True) for value in CLOCKWISE)
    path.write_bytes(content[:place] + matrix + content[place + 36 :])
    for shown in (
        next(film.sample_frames(path, np.array([0.5]), height=16, width=12)),
        next(film.frames_at(path, np.array([0.5]), height=16, width=12)),
    ):
        assert shown.shape == (16, 12, 3)
        assert shown[:7].mean() > 200
        assert shown[9:].mean() < 50


def mux(path: Path, *, picture_from: float, sound_from: float, seconds: float = 6.0) -> None:
    """Write a film whose picture brightens every second, with a tone; each begins when said."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("aac" if path.suffix == ".ts" else "pcm_s16le", rate=48_000)
        for number in range(round((seconds - picture_from) * 10)):
            second = int(picture_from + number / 10)
            pixels = np.full((48, 64, 3), 30 * (second + 1), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number + round(picture_from * 10), Fraction(1, 10)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        for start in range(round(sound_from * 48_000), round(seconds * 48_000), 1024):
            tone = np.sin(2 * np.pi * 440 * np.arange(start, start + 1024) / 48_000)
            frame = av.AudioFrame.from_ndarray(
                (8000 * tone).astype(np.int16)[None], format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts, frame.time_base = 48_000, start, Fraction(1, 48_000)
            container.mux(audio.encode(frame))
        container.mux(audio.encode())


def seconds_shown(path: Path) -> list[int]:
    frames = film.sample_frames(path, np.arange(6) + 0.5, height=6, width=8)
    return [round(frame.mean() / 30) for frame in frames]


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov"])
def test_time_0_is_where_the_file_begins(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"film.{suffix}"
    if suffix == "mp4":
        write_film(path, np.full((60, 48, 64, 3), 30, np.uint8), fps=10)
        assert film.origin(path) == 0
        return
    mux(path, picture_from=2.0, sound_from=0.0)
    assert film.origin(path) == pytest.approx(0, abs=0.03)
    assert film.probe(path).seconds == pytest.approx(6, abs=0.1)
    assert seconds_shown(path) == [0, 0, 3, 4, 5, 6], "black until the picture begins"


def test_sound_that_begins_later_stays_later(tmp_path: Path) -> None:
    mux(tmp_path / "film.mkv", picture_from=0.0, sound_from=2.0)
    first, samples = next(iter(sound.sound_blocks(tmp_path / "film.mkv")))
    assert first == pytest.approx(2.0, abs=0.01)
    assert len(samples)
    assert seconds_shown(tmp_path / "film.mkv") == [1, 2, 3, 4, 5, 6]


def test_a_cover_is_no_picture(tmp_path: Path) -> None:
    """A sound file with a cover has none; a film with a cover before it has its own."""
    for name, second in (("song.mp4", False), ("film.mp4", True)):
        with av.open(str(tmp_path / name), "w") as container:
            cover = container.add_stream("mjpeg", rate=1)
            cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
            cover.disposition = av.stream.Disposition.attached_pic
            streams = [container.add_stream("aac", rate=48_000)]
            if second:
                streams.append(container.add_stream("libx264", rate=10))
                streams[1].width, streams[1].height, streams[1].pix_fmt = 64, 48, "yuv420p"
            white = np.full((64, 64, 3), 255, np.uint8)
            container.mux(cover.encode(av.VideoFrame.from_ndarray(white, format="rgb24")))
            container.mux(cover.encode())
            for start in range(0, 96_000, 1024):
                frame = av.AudioFrame.from_ndarray(
                    np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
                )
                frame.sample_rate, frame.pts = 48_000, start
                frame.time_base = Fraction(1, 48_000)
                container.mux(streams[0].encode(frame))
            container.mux(streams[0].encode())
            for number in range(20 if second else 0):
                grey = np.full((48, 64, 3), 100, np.uint8)
                frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 10)
                container.mux(streams[1].encode(frame))
            if second:
                container.mux(streams[1].encode())
    assert not film.probe(tmp_path / "song.mp4").has_picture
    assert film.probe(tmp_path / "film.mp4").has_picture
    (shown,) = film.sample_frames(tmp_path / "film.mp4", np.array([1.0]), height=6, width=8)
    assert shown.mean() == pytest.approx(100, abs=5)
    with pytest.raises(DataError, match="has no picture"):
        next(film.sample_frames(tmp_path / "song.mp4", np.array([1.0]), height=6, width=8))


def test_a_sound_file_has_a_length(tmp_path: Path) -> None:
    path = tmp_path / "story.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.int16), layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    found = film.probe(path)
    assert (found.fps, found.has_picture, found.has_audio) == (0, False, True)
    assert found.seconds == pytest.approx(3, abs=0.01)


def test_one_wild_time_of_a_picture_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mux(tmp_path / "film.mkv", picture_from=0.0, sound_from=0.0)

    class Wild:
        """A stream's pictures, one of them with a time of 26 hours."""

        def __init__(self, frame: Any, number: int) -> None:
            self._frame = frame
            self.time = 95443.0 if number == 25 else frame.time

        def __getattr__(self, name: str) -> Any:
            return getattr(self._frame, name)

    class Container:
        def __init__(self, path: Path) -> None:
            self._container = real(path)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *given: object) -> None:
            self._container.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._container, name)

        def decode(self, stream: Any) -> Any:
            return (Wild(frame, n) for n, frame in enumerate(self._container.decode(stream)))

    real = film.open_film
    monkeypatch.setattr(film, "open_film", Container)
    assert seconds_shown(tmp_path / "film.mkv") == [1, 2, 3, 4, 5, 6]
