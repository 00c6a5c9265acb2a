"""Pictures of what the model reconstructs and predicts at single test TRs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from giblet_hpc.evaluation.canvas import new_figure
from giblet_hpc.splits import Block
from giblet_hpc.training.feed import StudyArrays
from giblet_hpc.training.predictor import Predictor
from giblet_hpc.training.windows import Window


def sample_trs(blocks: tuple[Block, ...], count: int) -> list[tuple[Block, int, int]]:
    """Return evenly spaced test TRs: block, TR in the run, row among all test TRs."""
    places = []
    row = 0
    for block in blocks:
        places += [(block, tr, row + tr - block.start) for tr in range(block.start, block.stop)]
        row += block.trs
    steps = np.linspace(0, len(places) - 1, min(count, len(places)) + 2)[1:-1]
    return [places[round(step)] for step in steps]


@torch.inference_mode()
def sample_figure(
    predictor: Predictor,
    study: StudyArrays,
    place: tuple[Block, int, int],
    predictions: NDArray[np.float32],
) -> Any:
    """Draw one TR: each modality and its reconstruction, and the scan against its prediction.

    Parameters
    ----------
    predictor : Predictor
    study : StudyArrays
    place : tuple
        From :func:`sample_trs`.
    predictions : ndarray, shape (subjects or 1, test trs, voxels)
    """
    block, tr, row = place
    batch = predictor.reader([Window(block, tr)])
    output = predictor.predict(batch)
    target = batch.bold.shape[1]
    positions = predictor.positions(None)
    figure = new_figure(11, 2.6)
    panels = sum(modality.panels for modality in predictor.reconstructed.values())
    axes = list(figure.subplots(1, panels + 1, squeeze=False)[0])
    for name, modality in predictor.reconstructed.items():
        own, axes = axes[: modality.panels], axes[modality.panels :]
        modality.draw(
            own,
            batch.stimulus[name][0, -target].cpu(),
            output.reconstruction[name][0, 0].float().cpu(),
            positions=positions.get(name),
        )
    scan, predicted = study.runs[block.run].bold[0, tr : tr + 1][0], predictions[0, row]
    r = np.corrcoef(scan, predicted)[0, 1] if scan.std() > 0 and predicted.std() > 0 else 0.0
    axes[0].scatter(scan, predicted, s=2, alpha=0.4)
    axes[0].set_title(f"scan of {study.subjects[0]} vs prediction (r = {r:.2f})", fontsize=8)
    figure.suptitle(f"{block.run}, TR {tr}", fontsize=9)
    return figure
