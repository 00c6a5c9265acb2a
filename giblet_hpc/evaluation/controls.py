"""Predictions that know nothing of the stimulus: what scores have to be read against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.splits import Block
from giblet_hpc.training.feed import StudyArrays

PREVIOUS = "previous"


class PreviousScan:
    """The scan of the TR before, as a prediction: it is indexed as (subjects, trs, voxels) is.

    No model of the stimulus can see it: it says how slowly scans change.

    Parameters
    ----------
    study : StudyArrays
    blocks : sequence of Block
        Test TRs; a block's first TR is predicted by itself.
    """

    def __init__(self, study: StudyArrays, blocks: Sequence[Block]) -> None:
        self._study, self._blocks = study, blocks

    def __len__(self) -> int:
        return len(self._study.subjects)

    def __getitem__(self, key: tuple[int, slice, slice]) -> NDArray[np.float32]:
        subject, trs, voxels = key
        assert trs == slice(None)
        parts = []
        for block in self._blocks:
            scans = self._study.runs[block.run].bold[subject, block.start : block.stop, voxels]
            parts.append(np.concatenate([scans[:1], scans[:-1]]))
        return np.concatenate(parts)
