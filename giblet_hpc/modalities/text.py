"""Text: the words of annotated segments, embedded, or counted and reduced by LSA."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from giblet_hpc import timing
from giblet_hpc.arrays import ArraySpec
from giblet_hpc.config.features import LSA, TextFeatures
from giblet_hpc.config.io import own_fields
from giblet_hpc.config.model import TemporalModel
from giblet_hpc.config.study import ScanRun
from giblet_hpc.digests import Digests, code_digest
from giblet_hpc.files import sha256_json
from giblet_hpc.media import sheets, words
from giblet_hpc.modalities.base import Estimates, Modality, Note
from giblet_hpc.modalities.vectors import draw_vectors
from giblet_hpc.models.dense import JOINT, scaled, stack
from giblet_hpc.models.vectors import VectorDecoder, VectorEncoder
from giblet_hpc.store import FeatureStore
from giblet_hpc.survey import Survey

if TYPE_CHECKING:
    from scipy.sparse import csr_array

PART = 256
"""Rows of counts that are projected at a time."""

USUAL_WIDTH = 1024
"""Of a large encoder's embeddings, such as bge-large's."""


class Text(Modality):
    """Rows of embeddings or of word counts, float32."""

    options: TextFeatures

    @property
    def counted(self) -> bool:
        """Whether the store holds word counts, for TF-IDF and SVD to be fitted later."""
        return self.options.encoder == LSA

    def expected_shape(self, *, tr: float, fps: float) -> tuple[int, ...]:
        """Return (D,): as for an encoder of the usual size, or as few words as LSA can do with."""
        del tr, fps
        if self.counted:
            return (self.options.dimensions + 1,)
        return (self.options.segments * USUAL_WIDTH,)

    def array(self, survey: Survey, run: ScanRun, digests: Digests) -> ArraySpec:
        """Return a run's array of embeddings or counts."""
        segments = survey.segments[run.name]
        vocabulary: list[str] = []
        if self.counted:
            every = [segment.text for own in survey.segments.values() for segment in own]
            vocabulary = words.vocabulary(every)
            width = len(vocabulary)
        else:
            width = self.options.segments * words.embedding_width(self.options)
        return ArraySpec(
            self.array_name(run.name),
            (survey.lengths[run.name], width),
            "float32",
            {
                "segments": sha256_json([list(segment) for segment in segments]),
                "vocabulary": sha256_json(vocabulary) if self.counted else "",
                f"features.{self.name}": own_fields(self.options),
                "weights": digests.weights(
                    self.options.weights, expected=self.options.weights_sha256
                ),
                "code": code_digest(sheets, words, timing.segment_overlap, Text.write),
            },
            {"words": vocabulary, "segments": [list(segment) for segment in segments]},
        )

    def captions(self, spec: ArraySpec) -> list[str]:
        """Return the words of the segments at each TR."""
        segments = [timing.Segment(*row) for row in spec.attributes.get("segments", [])]
        if not segments:
            return []
        there = timing.segment_overlap(segments, spec.shape[0]) > 0
        return [
            " / ".join(segments[number].text for number in np.flatnonzero(row)) for row in there
        ]

    def write(
        self, survey: Survey, run: ScanRun, *, spec: ArraySpec, store: FeatureStore, note: Note
    ) -> None:
        """Write a run's word counts or embeddings."""
        if not store.missing(spec):
            return
        segments, fill = survey.segments[run.name], self.options.forward_fill
        if self.counted:
            rows = words.word_counts(
                segments, spec.shape[0], spec.attributes["words"], forward_fill=fill
            )
        else:
            rows = words.place_embeddings(
                segments,
                words.embed([segment.text for segment in segments], self.options),
                spec.shape[0],
                slots=self.options.segments,
                forward_fill=fill,
            )
        store.write(spec, rows)
        note()

    @property
    def additive(self) -> bool:
        """Whether estimates are sums: LSA's are not."""
        return not self.counted

    def fit(
        self, parts: Iterable[NDArray[Any]], shared: NDArray[Any] | None
    ) -> dict[str, NDArray[Any]]:
        """Estimate LSA where words are counted, then mean and variance of the features."""
        if not self.counted:
            return super().fit(parts, shared)
        counts = packed(parts)
        estimates = fit_lsa(counts, self.options.dimensions)
        features = (
            self.inputs(counts[start : start + PART].toarray(), estimates)
            for start in range(0, counts.shape[0], PART)
        )
        return {**estimates, **super().fit(features, shared)}

    def placeholder_estimates(self, shape: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Return estimates of the right shapes; LSA's without fitting it to thousands of words."""
        if not self.counted:
            return super().placeholder_estimates(shape)
        size = self.options.dimensions
        return {
            "lsa_weights": np.ones(shape, np.float32),
            "lsa_components": np.ones((size, *shape), np.float32),
            "mean": np.zeros(size, np.float32),
            "variance": np.ones((), np.float32),
        }

    @property
    def projects(self) -> bool:
        """Whether counts are projected on LSA's components."""
        return self.counted

    def inputs(self, rows: NDArray[Any], estimates: Estimates) -> NDArray[Any]:
        """Project counts on the components of LSA; embeddings stay as they are."""
        if not self.counted:
            return rows
        return lsa_features(rows, estimates["lsa_weights"], estimates["lsa_components"])

    def encoder(self, options: TemporalModel) -> nn.Module:
        """Return a linear map."""
        variance = float(self.estimates["variance"])
        return VectorEncoder(self.estimate("mean"), variance, options.width)

    def decoder(self, options: TemporalModel, bottleneck: int) -> nn.Module:
        """Return a linear map."""
        del options
        return VectorDecoder(bottleneck, self.estimate("mean"))

    def dense_encoder(self, width: float) -> nn.Module:
        """Return the original's encoder."""
        return stack([self.shape[0], *scaled([512, 256], width)], [0.2, 0.2])

    def dense_decoder(self, width: float) -> nn.Module:
        """Return the original's decoder."""
        hidden = scaled([JOINT, 1024, 1024], width)
        return nn.Sequential(*stack(hidden, [0.3, 0.3]), nn.Linear(hidden[-1], self.shape[0]))

    def baseline_features(
        self, inputs: NDArray[Any], shared: NDArray[Any] | None
    ) -> NDArray[np.float32]:
        """Return the features themselves."""
        del shared
        return inputs

    def draw(
        self,
        axes: Sequence[Any],
        shown: torch.Tensor,
        predicted: torch.Tensor,
        *,
        positions: torch.Tensor | None,
    ) -> None:
        """Draw the features over each other."""
        del positions
        draw_vectors(axes[0], shown, predicted, title=f"{self.name} features")

    def remarks(self) -> list[str]:
        """Say what stands for the words, and where it is fitted."""
        if self.counted:
            return [f"Words: TF-IDF and an SVD to {self.options.dimensions} dimensions, fitted on "
                    "the training TRs of each fold."]  # fmt: skip
        return [f"Words: annotated segments, embedded by {self.options.encoder}."]


def packed(parts: Iterable[NDArray[np.float32]]) -> csr_array:
    """Return word counts (trs, words) without their zeros, which most of them are."""
    from scipy.sparse import csr_array, vstack

    return vstack([csr_array(rows) for rows in parts], format="csr")


def fit_lsa(counts: csr_array, dimensions: int) -> dict[str, NDArray[Any]]:
    """Fit TF-IDF weights and a truncated SVD to word counts.

    Parameters
    ----------
    counts : csr_array, shape (trs, words)
    dimensions : int
        At most one less than the words and the TRs.

    Returns
    -------
    dict with ``lsa_weights`` (words,) and ``lsa_components`` (dimensions, words)
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.preprocessing import normalize

    weights = TfidfTransformer().fit(counts).idf_.astype(np.float32)
    # A word that the training TRs lack says nothing.
    weights[np.asarray(counts.sum(axis=0)).ravel() == 0] = 0
    size = min(dimensions, counts.shape[0] - 1, counts.shape[1] - 1)
    svd = TruncatedSVD(size, algorithm="arpack", random_state=0)
    svd.fit(normalize(counts.multiply(weights[None]).tocsr()))
    return {"lsa_weights": weights, "lsa_components": svd.components_.astype(np.float32)}


def lsa_features(
    counts: NDArray[np.float32], weights: NDArray[np.float32], components: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Project word counts (trs, words) on fitted components: (trs, dimensions)."""
    return np.asarray(_unit_length(counts * weights) @ components.T, dtype=np.float32)


def _unit_length(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1), dtype=np.float32)
