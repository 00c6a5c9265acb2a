from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from scipy.signal import stft

from giblet_hpc.config.features import AudioFeatures
from giblet_hpc.errors import ConfigError, DataError
from giblet_hpc.media import codec
from giblet_hpc.media import sound as audio
from tests.films import write_film

OPTIONS = AudioFeatures(codec="untrained", bandwidth_kbps=3)


def write_sound(
    path: Path, wave: np.ndarray, rate: int, layout: str, name: str = "pcm_s16le"
) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(name, rate=rate, layout=layout)
        channels = 2 if layout == "stereo" else 1
        data = (np.repeat(wave[None], channels, 0) * 32767).astype(np.int16)
        for start in range(0, len(wave), 1024):
            block = np.ascontiguousarray(data[:, start : start + 1024].T.reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout=layout)
            frame.sample_rate = rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    random = np.random.default_rng(0)
    level = np.repeat(random.random(20), 12_000)
    return (0.3 * level * random.standard_normal(len(level))).astype(np.float32)


@pytest.fixture(scope="module")
def encoder() -> codec.TransformersCodec:
    return codec.TransformersCodec(OPTIONS)


@pytest.mark.parametrize(("rate", "layout"), [(44_100, "stereo"), (48_000, "mono")])
def test_any_sound_becomes_24_khz_mono(rate: int, layout: str, tmp_path: Path) -> None:
    time = np.arange(4 * rate) / rate
    write_sound(tmp_path / "a.mkv", 0.5 * np.sin(2 * np.pi * 440 * time), rate, layout)
    chunks = list(
        audio.sound_chunks(
            tmp_path / "a.mkv", start=1.0, seconds=2.0, chunk=0.5, context=0, ahead=0
        )
    )
    whole = np.concatenate([chunk for chunk, *_ in chunks])
    assert len(whole) == 48_000
    # A resampler's filter may shift by a few samples: less than 0.2 ms.
    errors = {
        lag: np.abs(
            whole - 0.5 * np.sin(2 * np.pi * 440 * (1.0 + (np.arange(48_000) + lag) / 24_000))
        ).max()
        for lag in np.arange(-4, 4.1, 0.1)
    }
    assert min(errors.values()) < 0.01


def test_outside_the_film_is_silence(tmp_path: Path) -> None:
    write_sound(tmp_path / "a.mkv", np.full(48_000, 0.5), 48_000, "mono")
    chunks = audio.sound_chunks(
        tmp_path / "a.mkv", start=-1.0, seconds=3.0, chunk=9, context=0, ahead=0
    )
    whole = np.concatenate([chunk for chunk, *_ in chunks])
    assert len(whole) == 72_000
    assert not whole[:23_900].any()
    assert whole[25_000:47_000] == pytest.approx(0.5, abs=0.02)
    assert not whole[48_200:].any()


def test_chunks_carry_what_was_heard_before(tmp_path: Path) -> None:
    wave = np.linspace(-0.5, 0.5, 24_000 * 5)
    write_sound(tmp_path / "a.mkv", wave, 24_000, "mono")
    chunks = list(
        audio.sound_chunks(
            tmp_path / "a.mkv", start=0, seconds=5, chunk=2.0, context=0.8, ahead=600
        )
    )
    assert [skip for _, skip, _ in chunks] == [0, 19_200, 19_200]
    assert [len(v) - skip - size for v, skip, size in chunks] == [600, 600, 0]
    for number, (values, skip, _) in enumerate(chunks):
        begin = number * 48_000 - skip
        np.testing.assert_allclose(values, wave[begin : begin + len(values)], atol=1e-3)


def test_mel_columns_in_chunks_equal_those_of_one_pass(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, 24_000 * 4)
    write_sound(tmp_path / "a.mkv", wave, 24_000, "mono")
    mel = audio.LogMel(16)
    found = []
    for chunk in (4.0, 1.0):
        pieces = audio.sound_chunks(
            tmp_path / "a.mkv", start=0, seconds=4, chunk=chunk, context=0.5, ahead=mel.ahead
        )
        columns = [
            mel(sound)[:, skip // audio.HOP : (skip + size) // audio.HOP]
            for sound, skip, size in pieces
        ]
        found.append(np.concatenate(columns, axis=1))
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


def test_sound_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    write_sound(
        tmp_path / "a.mkv", np.random.default_rng(0).normal(0, 0.1, 24_000 * 20), 24_000, "mono"
    )
    content = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "half.mkv").write_bytes(content[: len(content) // 2])
    chunks = audio.sound_chunks(
        tmp_path / "half.mkv", start=0, seconds=20, chunk=5.0, context=0, ahead=0
    )
    with pytest.raises(DataError, match=r"half.mkv: the sound ends after .* 20\.0 s"):
        list(chunks)


def test_film_without_sound(tmp_path: Path) -> None:
    write_film(tmp_path / "silent.mp4", np.zeros((10, 16, 16, 3), np.uint8), fps=10)
    with pytest.raises(DataError, match="no sound track"):
        next(audio.sound_blocks(tmp_path / "silent.mp4"))


@pytest.mark.parametrize(("rate", "books"), [(1.5, 2), (3, 4), (6, 8), (12, 16), (24, 32)])
def test_bit_rate_gives_the_codebooks(rate: float, books: int) -> None:
    assert codec.codebooks(AudioFeatures(codec="untrained", bandwidth_kbps=rate)) == books


def test_unknown_bit_rate_and_absent_weights() -> None:
    with pytest.raises(ConfigError, match=r"this codec offers 1.5, 3, 6, 12, 24"):
        codec.codebooks(AudioFeatures(codec="untrained", bandwidth_kbps=5))
    with pytest.raises(DataError, match="weights not found on this machine"):
        codec.codebooks(AudioFeatures(codec="facebook/encodec_24khz_nowhere"))


def test_codes_in_chunks_equal_those_of_one_pass(
    sound: np.ndarray, encoder: codec.TransformersCodec
) -> None:
    whole = encoder(sound)
    assert whole.shape == (4, 750)
    assert min(len(np.unique(row)) for row in whole) > 100, "the codebooks are used"
    size, keep = 3 * 24_000, 24_000
    parts = []
    for start in range(0, len(sound), size):
        before = min(start, keep)
        parts.append(encoder(sound[start - before : start + size])[:, before // audio.HOP :])
    differing = (np.concatenate(parts, axis=1) != whole).mean()
    assert differing < 0.01


def test_codebooks_have_their_shape(encoder: codec.TransformersCodec) -> None:
    assert encoder.codebooks().shape == (4, 1024, 128)


def test_codes_become_sound_again(sound: np.ndarray, encoder: codec.TransformersCodec) -> None:
    """A codec without training makes no likeness; its decoder is transformers' own."""
    codes = encoder(sound[:48_000])
    made = encoder.decode(codes)
    assert made.shape == (48_000,)
    with torch.inference_mode():
        whole = encoder.model(
            torch.from_numpy(sound[:48_000])[None, None], bandwidth=OPTIONS.bandwidth_kbps
        ).audio_values
    np.testing.assert_allclose(made, whole.cpu().numpy().ravel(), atol=1e-4)


def test_weights_load_from_a_folder_and_are_the_same_each_time(
    sound: np.ndarray, encoder: codec.TransformersCodec, tmp_path: Path
) -> None:
    codec.untrained_codec(4).save_pretrained(tmp_path / "weights")
    options = AudioFeatures(codec=str(tmp_path / "weights"), bandwidth_kbps=3)
    np.testing.assert_array_equal(
        codec.TransformersCodec(options)(sound[:24_000]),
        encoder(sound[:24_000]),
    )


def test_both_backends_give_the_same_codes(sound: np.ndarray) -> None:
    pytest.importorskip("encodec", reason="encodec needs torchaudio, which needs CUDA libraries")
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    options = AudioFeatures(backend="encodec", codec=str(folder), bandwidth_kbps=3)
    try:
        theirs = codec.EncodecPackage(options)
        ours = codec.TransformersCodec(AudioFeatures(bandwidth_kbps=3))
    except (DataError, OSError) as error:
        pytest.skip(f"no EnCodec weights on this machine: {error}")
    codes = ours(sound)
    assert (theirs(sound) != codes).mean() < 0.001
    np.testing.assert_allclose(theirs.decode(codes), ours.decode(codes), atol=1e-3)


def test_absent_backend_is_an_error_not_a_fallback() -> None:
    try:
        import encodec  # noqa: F401
    except ImportError:
        with pytest.raises(ConfigError, match="the package cannot be imported"):
            codec.make_codec(AudioFeatures(backend="encodec", codec="/weights"))


def test_log_mel_matches_an_independent_spectrogram() -> None:
    tone = np.sin(2 * np.pi * 3000 * np.arange(24_000) / 24_000).astype(np.float32)
    encoder = audio.LogMel(64)
    energies = encoder(tone)
    assert energies.shape == (64, 75)
    frequencies, _, spectrum = stft(
        tone, 24_000, nperseg=1024, noverlap=1024 - 320, window="hann", padded=False
    )
    loudest = frequencies[np.abs(spectrum).mean(axis=1).argmax()]
    band = int(energies.mean(axis=1).argmax())
    centre = np.linspace(0, 12_000, 513)[encoder._filters[:, band].argmax()]
    assert centre == pytest.approx(loudest, rel=0.05)


class Block:
    """A decoded stretch of a second of sound."""

    sample_rate = 1000
    samples = 1000

    def __init__(self, time: float | None) -> None:
        self.time = time


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 1, 2, 3], [0, 1, 2, None]),
        ([95443.7, 0, 1, 2], [None, 0, 1, None]),
        ([0, 1, 95443.7, 3, 4], [0, None, None, 3, None]),
        ([0, 1, 5, 6, 7], [0, None, 5, 6, None]),
        ([0, 1, -70, 3, 4], [0, None, None, 3, None]),
        ([None, 1, 2], [None, 1, None]),
    ],
)
def test_a_time_counts_when_the_next_one_follows_on_it(
    times: list[float | None], expected: list[float | None]
) -> None:
    found = [stamp for _, stamp in audio._confirmed(iter([Block(time) for time in times]))]
    assert found == expected
