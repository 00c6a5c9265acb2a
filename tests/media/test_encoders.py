"""Hidden states of models of transformers, compared with the models themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

from giblet_hpc.errors import DataError
from giblet_hpc.media import encoders
from tests import pretrained
from tests.media.test_words import minilm_folder

RANDOM = np.random.default_rng(0)
WORDS = [
    "tea",
    "kettle",
    "rain",
    "taxi",
    "tea",
    "paper",
    "kettle",
    "umbrella",
    "bench",
    "flower",
    "rain",
    "tea",
]


def test_pictures_of_a_transformer(tmp_path: Path) -> None:
    folder = pretrained.image_model(tmp_path / "model")
    found = encoders.PictureStates(str(folder), "mean")
    assert (found.shape, found.clips, found.height, found.width) == ((4, 16), False, 28, 28)
    pictures = RANDOM.integers(0, 256, (3, 1, 28, 28, 3)).astype(np.uint8)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    pixels = (pictures[:, 0].astype(np.float32) / 255 - 0.4) / 0.2
    with torch.inference_mode():
        states = model(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()),
                       output_hidden_states=True).hidden_states  # fmt: skip
    expected = np.stack([state.mean(1).numpy() for state in states], axis=1)
    np.testing.assert_allclose(found(pictures), expected, atol=2e-3)
    first = encoders.PictureStates(str(folder), "cls")(pictures)
    np.testing.assert_allclose(first[:, 2], states[2][:, 0].numpy(), atol=2e-3)


def test_layers_of_other_widths_are_padded(tmp_path: Path) -> None:
    found = encoders.PictureStates(str(pretrained.narrowing_model(tmp_path / "model")), "mean")
    pictures = RANDOM.integers(0, 256, (2, 1, found.height, found.width, 3)).astype(np.uint8)
    states = found(pictures)
    assert states.shape == (2, *found.shape)
    assert found.shape.width == 12
    assert states[:, 0, :8].any()
    assert not states[:, 0, 8:].any()


def test_clips_of_a_video_model(tmp_path: Path) -> None:
    found = encoders.PictureStates(str(pretrained.video_model(tmp_path / "model")), "mean")
    assert (found.clips, found.frames) == (True, 4)
    clips = RANDOM.integers(0, 256, (2, 4, found.height, found.width, 3)).astype(np.uint8)
    states = found(clips)
    assert states.shape == (2, *found.shape)
    turned = found(clips[:, ::-1].copy())
    assert np.abs(turned[:, -1] - states[:, -1]).max() > 1e-3, "time matters"


@pytest.mark.parametrize(("count", "every", "stride"), [(4, 1, 1), (4, 3, 1), (2, 5, 1), (4, 1, 2)])
def test_clips_overlap_by_what_a_step_brings(count: int, every: int, stride: int) -> None:
    span = (count - 1) * stride + 1

    def frames() -> Iterator[NDArray[np.uint8]]:
        for number in range(span + 9 * every):
            yield np.full((1, 1, 3), number, np.uint8)

    found = list(encoders.clips_of(frames(), count, steps=10, every=every, stride=stride))
    assert len(found) == 10
    for step, clip in enumerate(found):
        expected = range(step * every, step * every + span, stride)
        assert clip[:, 0, 0, 0].tolist() == list(expected)


def test_sound_is_averaged_over_steps(tmp_path: Path) -> None:
    folder = pretrained.sound_model(tmp_path / "model")
    found = encoders.SoundStates(str(folder))
    assert (found.rate, found.longest) == (16_000, np.inf)
    sound = RANDOM.standard_normal(32_000).astype(np.float32)
    states = found(sound, np.array([0.0, 1.0, 2.0]))
    model = transformers.AutoModel.from_pretrained(folder).eval()
    standard = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
    with torch.inference_mode():
        whole = model(torch.from_numpy(standard)[None], output_hidden_states=True).hidden_states
    last = whole[-1][0].numpy()
    half = len(last) // 2
    np.testing.assert_allclose(states[0, -1], last[: half + 1].mean(0), atol=5e-2)
    np.testing.assert_allclose(states.mean(0)[-1], last.mean(0), atol=5e-2)


@pytest.mark.parametrize("context", [4, 100])
def test_words_are_read_after_those_before_them(tmp_path: Path, context: int) -> None:
    folder = pretrained.language_model(tmp_path / "model", sorted(set(WORDS)))
    found = encoders.WordStates(str(folder), context)
    states = np.concatenate(list(found(WORDS)))
    assert states.shape == (len(WORDS), *found.shape)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    stride = max(1, context // 4)
    for number in (0, 5, len(WORDS) - 1):
        first = max(0, number // stride * stride - context)
        text = tokens(" ".join(WORDS[first : number + 1]), return_tensors="pt")
        with torch.inference_mode():
            last = model(**text, output_hidden_states=True).hidden_states[-1][0, -1]
        np.testing.assert_allclose(states[number, -1], last.numpy(), atol=5e-3)
    later = np.concatenate(list(found(WORDS, since=7)))
    assert len(later) == len(WORDS) - 7
    if context == 100:
        np.testing.assert_allclose(later, states[7:], atol=5e-3)


def test_real_weights_read_words() -> None:
    """MiniLM reads both ways; similar words are closer than others."""
    found = encoders.WordStates(str(minilm_folder()), 8)
    assert found.shape == (7, 384)
    doctor, physician, rain = (np.concatenate(list(found([word])))[0, -1].astype(float)
                               for word in ("doctor", "physician", "rain"))  # fmt: skip

    def alike(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    assert alike(doctor, physician) > alike(doctor, rain) + 0.1


def test_more_words_than_a_model_takes(tmp_path: Path) -> None:
    folder = pretrained.language_model(tmp_path / "model", ["tea"])
    with pytest.raises(DataError, match="cannot take .* words at once") as caught:
        list(encoders.WordStates(str(folder), 100)(["tea"] * 200))
    assert "context_words" in caught.value.hint


def test_an_absent_model_is_an_error_not_random_states() -> None:
    with pytest.raises(DataError, match="cannot be loaded here as a model") as caught:
        encoders.PictureStates("nobody/nothing", "mean")
    assert "giblet-hpc weights" in caught.value.hint


def test_values_that_are_no_numbers_are_refused() -> None:
    size = encoders.Size(1, 2)
    with pytest.raises(DataError, match="layer 0 of the model gives values that are no numbers"):
        encoders.stacked([np.array([[np.nan, 1.0]], np.float32)], size)
    large = encoders.stacked([np.array([[1e9, -1e9]], np.float32)], size)
    assert np.isfinite(large).all()


def test_sound_models_without_time_are_refused(tmp_path: Path) -> None:
    """A spectrogram transformer takes patches of a fixed stretch."""
    folder = pretrained.spectrogram_model(tmp_path / "model")
    with pytest.raises(DataError, match="do not follow each other in time"):
        encoders.SoundStates(str(folder), 4.0)


def test_the_part_of_a_network_that_sees(tmp_path: Path) -> None:
    folder = pretrained.picture_and_text_model(tmp_path / "model")
    found = encoders.PictureStates(str(folder), "mean")
    pictures = RANDOM.integers(0, 256, (2, 1, found.height, found.width, 3)).astype(np.uint8)
    assert found(pictures).shape == (2, *found.shape)
    language = pretrained.language_model(tmp_path / "language", ["tea"])
    with pytest.raises(DataError, match="cannot be read as a model of what it is used for"):
        encoders.PictureStates(str(language), "mean")


def test_words_read_from_the_middle_were_read_after_the_same_words(tmp_path: Path) -> None:
    folder = pretrained.language_model(tmp_path / "model", sorted(set(WORDS)))
    found = encoders.WordStates(str(folder), 8)
    whole = np.concatenate(list(found(WORDS)))
    for since in (1, 5, 11):
        np.testing.assert_array_equal(
            np.concatenate(list(found(WORDS, since=since))), whole[since:]
        )
