from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from giblet_hpc.config.features import UNTRAINED, AudioFeatures
from giblet_hpc.modalities.audio import Audio
from giblet_hpc.modalities.sound_sums import code_vectors

RANDOM = np.random.default_rng(0)


def test_codes_stand_for_the_sum_of_their_vectors() -> None:
    books = RANDOM.standard_normal((2, 1024, 4)).astype(np.float32)
    codes = np.array([[[3, 5], [7, 1023]]], dtype=np.int16)
    expected = [books[0, 3] + books[1, 7], books[0, 5] + books[1, 1023]]
    np.testing.assert_allclose(code_vectors(codes, books)[0], expected)


@pytest.mark.parametrize("logits", [True, False])
def test_what_is_saved_is_what_was_reconstructed(tmp_path: Path, logits: bool) -> None:
    """Codes are read back; the sound has the TRs' length."""
    options = AudioFeatures(codec=UNTRAINED, bandwidth_kbps=3)
    modality = Audio("audio", options).fitted((4, 112), {})
    shown = torch.from_numpy(RANDOM.integers(0, 1024, (3, 4, 112)).astype(np.int16))
    made = torch.from_numpy(RANDOM.integers(0, 1024, (3, 4, 112)))
    predicted = made.float() + 0.3
    if logits:
        predicted = torch.nn.functional.one_hot(made.transpose(1, 2), 1024).float()
    files = modality.save(tmp_path / "s", shown, {"reconstructed": predicted}, tr=1.5)
    assert {file.name for file in files} == {
        "s-shown.wav", "s-shown-codes.npy", "s-reconstructed.wav", "s-reconstructed-codes.npy",
    }  # fmt: skip
    for what, codes in (("shown", shown), ("reconstructed", made)):
        read = np.load(tmp_path / f"s-{what}-codes.npy")
        np.testing.assert_array_equal(read, np.concatenate(list(codes.numpy()), axis=1))
    with wave.open(str(tmp_path / "s-reconstructed.wav"), "rb") as sound:
        assert sound.getnframes() == 3 * 112 * 320
    positions = modality.whole_positions()
    assert positions is not None
    assert positions.tolist() == list(range(112))


def test_mel_bands_are_saved_as_numbers(tmp_path: Path) -> None:
    modality = Audio("audio", AudioFeatures(kind="mel", mel_bands=8)).fitted((8, 112), {})
    rows = torch.rand(2, 8, 112)
    files = modality.save(tmp_path / "s", rows, {"reconstructed": rows * 2}, tr=1.5)
    assert [file.suffix for file in files] == [".npy", ".npy"]
    np.testing.assert_array_equal(np.load(files[1]), (rows * 2).numpy())
    assert modality.whole_positions() is None


def test_bands_are_standardised_over_trs_and_columns() -> None:
    rows = RANDOM.standard_normal((9, 3, 5)).astype(np.float32) * [[1.0], [2.0], [0.0]] + 4
    found = Audio("audio", AudioFeatures(kind="mel", mel_bands=3)).fit([rows[:4], rows[4:]], None)
    np.testing.assert_allclose(found["band_mean"], rows.mean(axis=(0, 2)), rtol=1e-5)
    np.testing.assert_allclose(found["band_deviation"][:2], rows.std(axis=(0, 2))[:2], rtol=1e-5)
    assert found["band_deviation"][2] > 0, "a silent band has a deviation to divide by"


def test_controls_of_codes_are_the_frequent_ones_and_those_of_the_tr_before() -> None:
    random = np.random.default_rng(0)
    books = random.random((2, 1024, 128)).astype(np.float32)
    audio = Audio("audio", AudioFeatures(codec=UNTRAINED))
    shown = random.integers(0, 3, (7, 2, 6)).astype(np.int16)
    audio = audio.fitted((2, 6), audio.fit([shown], books))
    rows, before = torch.from_numpy(shown)[None, 1:], torch.from_numpy(shown)[None, :-1]
    positions, mask = torch.tensor([0, 3]), torch.ones(1, 6, dtype=torch.bool)
    made = torch.zeros(1, 1, 2, 2, 1024)
    found = audio.control_scores(rows, before, mask, positions=positions, made=made)
    usual = [np.bincount(shown[:, book].ravel()).argmax() for book in range(2)]
    hits = np.mean([shown[1:, book][:, [0, 3]] == usual[book] for book in range(2)])
    assert float(found["mean"]["top1"]) == pytest.approx(hits)
    assert float(found["mean"]["error"]) == pytest.approx(1, abs=0.2)
    again = (shown[1:, :, [0, 3]] == shown[:-1, :, [0, 3]]).mean()
    assert {key: float(value) for key, value in found["previous"].items()} == {
        "top1": pytest.approx(again)
    }
