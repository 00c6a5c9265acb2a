"""What is estimated from a fold's training TRs, and from nothing else: LSA, means, variances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.config import RunConfig
from giblet_hpc.errors import DataError
from giblet_hpc.extract.text import LSA
from giblet_hpc.files import write_with
from giblet_hpc.models.shapes import Shapes
from giblet_hpc.splits import Block
from giblet_hpc.training.data import StudyArrays

CODES = 1024
SMALLEST_VARIANCE = 1e-8


@dataclass(frozen=True)
class Fitted:
    """Estimates from the training TRs of one fold.

    Parameters
    ----------
    values : dict of str to ndarray
        ``bold_variance`` (); ``video_mean`` (H, X, 3) and ``video_variance`` () of pixels as
        fractions; ``audio_log_probability`` (Q, codes) and ``audio_entropy`` () in nats, or
        ``audio_mean`` (Q, C) and ``audio_variance`` (); ``text_mean`` (D,), ``text_variance`` ();
        for `lsa` also ``lsa_weights`` (words,) and ``lsa_components`` (D, words).
    """

    values: dict[str, NDArray[Any]]

    def scalar(self, name: str) -> float:
        """Return a value of shape ()."""
        return float(self.values[name])

    def text_features(self, study: StudyArrays) -> dict[str, NDArray[np.float32]] | None:
        """Return the `lsa` features of every run, (trs, D); None where the store holds features."""
        if "lsa_components" not in self.values:
            return None
        return {
            name: lsa_features(
                run.stimulus["text"], self.values["lsa_weights"], self.values["lsa_components"]
            )
            for name, run in study.runs.items()
        }

    def save(self, path: Path) -> None:
        """Write to an .npz file, atomically."""
        # numpy's stubs take the keyword arguments for its own options.
        write_with(path, lambda handle: np.savez(handle, **self.values))  # type: ignore[arg-type]


def load_fitted(path: Path) -> Fitted:
    """Read estimates from an .npz file."""
    with np.load(path, allow_pickle=False) as arrays:
        return Fitted({name: arrays[name] for name in arrays.files})


def rows_of(values: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the rows of several blocks one after the other."""
    return np.concatenate(list(values))


def fit(config: RunConfig, study: StudyArrays, blocks: Sequence[Block]) -> Fitted:
    """Estimate everything from the training blocks.

    Raises
    ------
    DataError
        When the scans of the training TRs do not vary.
    """
    values: dict[str, NDArray[Any]] = {}

    def training(name: str) -> NDArray[Any]:
        return rows_of([study.runs[b.run].stimulus[name][b.start : b.stop] for b in blocks])

    values["bold_variance"] = _scan_variance(study, blocks)
    if config.features.video:
        values |= _fit_video(training("video"))
    if config.features.audio:
        fit_audio = _fit_codes if config.features.audio.kind == "codes" else _fit_mel
        values |= fit_audio(training("audio"))
        if study.codebooks is not None:
            values |= _fit_sound(training("audio"), study.codebooks)
    if config.features.text:
        rows = training("text")
        if config.features.text.encoder == LSA:
            values |= fit_lsa(rows, config.features.text.dimensions)
            rows = lsa_features(rows, values["lsa_weights"], values["lsa_components"])
        values["text_mean"] = rows.mean(axis=0)
        values["text_variance"] = _variance(rows)
    return Fitted(values)


def _scan_variance(study: StudyArrays, blocks: Sequence[Block]) -> NDArray[np.float64]:
    """Mean over subjects, blocks and voxels of the variance over valid TRs."""
    variances = []
    for block in blocks:
        run = study.runs[block.run]
        for subject in range(len(study.subjects)):
            there = run.valid[subject, block.start : block.stop]
            scans = run.bold[subject, block.start : block.stop][there]
            if len(scans):
                variances.append(scans.var(axis=0, dtype=np.float64).mean())
    if not variances or np.mean(variances) < SMALLEST_VARIANCE:
        raise DataError("the scans of the training TRs do not vary")
    return np.array(np.mean(variances))


def _variance(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Mean over features of the variance over TRs: what predicting the mean costs."""
    return np.maximum(rows.var(axis=0, dtype=np.float64).mean(), SMALLEST_VARIANCE)


def _fit_video(rows: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    total = np.zeros(rows.shape[2:], dtype=np.float64)
    squares = np.zeros(rows.shape[2:], dtype=np.float64)
    for row in rows:
        pixels = row.astype(np.float64) / 255
        total += pixels.sum(axis=0)
        squares += (pixels**2).sum(axis=0)
    count = rows.shape[0] * rows.shape[1]
    mean = total / count
    variance = (squares / count - mean**2).mean()
    return {
        "video_mean": mean.astype(np.float32),
        "video_variance": np.maximum(variance, SMALLEST_VARIANCE),
    }


def _fit_codes(rows: NDArray[np.int16]) -> dict[str, NDArray[Any]]:
    counts = np.stack(
        [np.bincount(rows[:, q].ravel(), minlength=CODES) for q in range(rows.shape[1])]
    )
    # Half a count more, so that a code not seen in training is unlikely but possible.
    probability = (counts + 0.5) / (counts + 0.5).sum(axis=1, keepdims=True)
    logarithm = np.log(probability)
    observed = counts / counts.sum(axis=1, keepdims=True)
    cost = -(observed * logarithm).sum(axis=1).mean()
    return {
        "audio_log_probability": logarithm.astype(np.float32),
        "audio_entropy": np.maximum(cost, SMALLEST_VARIANCE),
        "audio_variance": _variance(rows.astype(np.float32)),
    }


def sound_vectors(codes: NDArray[np.int16], codebooks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what codes (trs, Q, C) stand for: the sum of their vectors, (trs, C, 128)."""
    total = np.zeros((codes.shape[0], codes.shape[2], codebooks.shape[2]), dtype=np.float32)
    for number, book in enumerate(codebooks):
        total += book[codes[:, number]]
    return total


def _fit_sound(rows: NDArray[np.int16], codebooks: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    total, squares, count = 0.0, 0.0, 0
    for row in rows:
        vectors = sound_vectors(row[None], codebooks)[0].astype(np.float64)
        total, squares = total + vectors.sum(0), squares + (vectors**2).sum(0)
        count += len(vectors)
    mean = total / count
    variance = np.maximum(squares / count - mean**2, SMALLEST_VARIANCE)
    return {
        "sound_codebooks": codebooks,
        "sound_mean": np.asarray(mean, dtype=np.float32),
        "sound_deviation": np.sqrt(variance).astype(np.float32),
    }


def _fit_mel(rows: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    return {"audio_mean": rows.mean(axis=0), "audio_variance": _variance(rows)}


def fit_lsa(counts: NDArray[np.float32], dimensions: int) -> dict[str, NDArray[Any]]:
    """Fit TF-IDF weights and a truncated SVD to word counts.

    Parameters
    ----------
    counts : ndarray, shape (trs, words)
    dimensions : int
        At most one less than the words and the TRs.

    Returns
    -------
    dict with ``lsa_weights`` (words,) and ``lsa_components`` (dimensions, words)
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfTransformer

    weights = TfidfTransformer().fit(counts).idf_.astype(np.float32)
    # A word that the training TRs lack says nothing.
    weights[counts.sum(axis=0) == 0] = 0
    size = min(dimensions, counts.shape[0] - 1, counts.shape[1] - 1)
    svd = TruncatedSVD(size, algorithm="arpack", random_state=0)
    svd.fit(_unit_rows(counts * weights))
    return {"lsa_weights": weights, "lsa_components": svd.components_.astype(np.float32)}


def lsa_features(
    counts: NDArray[np.float32], weights: NDArray[np.float32], components: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Project word counts (trs, words) on fitted components: (trs, dimensions)."""
    return np.asarray(_unit_rows(counts * weights) @ components.T, dtype=np.float32)


def _unit_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1), dtype=np.float32)


def shapes_of(config: RunConfig, study: StudyArrays, fitted: Fitted) -> Shapes:
    """Return the sizes that the model is built for."""
    stimulus = next(iter(study.runs.values())).stimulus
    text = None
    if config.features.text:
        text = len(fitted.values["text_mean"])
    audio = config.features.audio
    return Shapes(
        video=stimulus["video"].shape[1:4] if config.features.video else None,
        audio=stimulus["audio"].shape[1:] if audio else None,
        codes=CODES if audio and audio.kind == "codes" else 0,
        text=text,
        subjects=len(study.subjects),
        voxels=study.voxels,
    )
