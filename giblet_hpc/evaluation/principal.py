"""Principal components of each modality's features: the bands of the linear baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.modalities.base import Modality
from giblet_hpc.splits import Block
from giblet_hpc.training.feed import StudyArrays
from giblet_hpc.training.statistics import in_parts, rows_of

SVD_SEED = 0
Features = dict[str, dict[str, NDArray[np.float32]]]
"""By run and band, (trs, components)."""


def principal_features(
    study: StudyArrays,
    modalities: Mapping[str, Modality],
    blocks: Sequence[Block],
    *,
    components: int,
) -> Features:
    """Return every run's features: each modality's principal components of the training TRs.

    A modality is scaled to unit total variance, its components keep their relative sizes.

    Parameters
    ----------
    study : StudyArrays
    modalities : mapping of str to Modality
        Of which those are taken that feed the network.
    blocks : sequence of Block
        Training TRs.
    components : int
        Kept of each modality, at most.
    """
    from sklearn.decomposition import PCA

    def features_of(rows: NDArray[Any], kind: Modality) -> NDArray[Any]:
        return kind.baseline_features(
            kind.inputs(rows, kind.estimates), study.shared.get(kind.name)
        )

    found: Features = {name: {} for name in study.runs}
    for modality, kind in modalities.items():
        if not kind.feeds:
            continue
        features = {
            name: in_parts(run.stimulus[modality], partial(features_of, kind=kind))
            for name, run in study.runs.items()
        }
        training = rows_of([features[b.run][b.start : b.stop] for b in blocks])
        size = min(components, len(training) - 1, training.shape[1])
        pca = PCA(size, svd_solver="full" if min(training.shape) < 2000 else "randomized",
                  random_state=SVD_SEED).fit(training)  # fmt: skip
        divisor = math.sqrt(float(pca.explained_variance_.sum())) or 1.0
        for name, values in features.items():
            found[name][modality] = (pca.transform(values) / divisor).astype(np.float32)
    return found
