"""Scores of the validation TRs while training goes on."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from giblet_hpc.training.losses import Losses
from giblet_hpc.training.predictor import Predictor
from giblet_hpc.training.strategy import Strategy
from giblet_hpc.training.voxel_sums import VoxelSums
from giblet_hpc.training.windows import Window


@torch.no_grad()
def validate(
    predictor: Predictor,
    losses: Losses,
    windows: Sequence[Window],
    *,
    runs: list[str],
    strategy: Strategy,
) -> dict[str, float]:
    """Score TRs exactly; every rank gets the same figures.

    Parameters
    ----------
    predictor : Predictor
    losses : Losses
    windows : sequence of Window
        Which cover the TRs once.
    runs : list of str
        Names of all runs.
    strategy : Strategy

    Returns
    -------
    dict of str to float
        ``fmri_error`` over the scans' training variance, ``r`` averaged over voxels, and the
        components of the loss.
    """
    predictor.model.eval()
    shared, device = strategy.sums, strategy.world.device
    options = predictor.config.train
    mine = windows[shared.rank :: shared.size]
    shapes = predictor.shapes
    sums = VoxelSums(runs, subjects=shapes.subjects, voxels=shapes.voxels, device=device)
    names = ["fmri", *predictor.reconstructed]
    totals = torch.zeros(len(names) + 1, dtype=torch.float64, device=device)
    positions = predictor.positions(None)
    size = max(1, options.batch_windows // shared.size)
    # All ranks call the model equally often, as some modes make its layers' tensors together.
    for start in range(0, -(-len(windows) // shared.size), size):
        chosen = mine[start : start + size]
        batch = predictor.reader(chosen or windows[:1])
        output = predictor.predict(batch)
        if not chosen:
            continue
        trs = batch.inside[:, -options.window_trs :].sum()
        components = losses.components(output, batch, positions)
        totals += torch.stack([*(components[name] * trs for name in names), trs]).double()
        for number, window in enumerate(chosen):
            sums.add(window.block.run, output.bold, batch, number)
    sums.reduce(shared)
    means = (shared.reduce(totals)[:-1] / totals[-1]).tolist()
    r = sums.correlation()
    # Groups of ranks may differ by a bit, and what is decided by these figures may not.
    return strategy.world.broadcast({
        "fmri_error": sums.mean_squared_error() / predictor.statistics.bold_variance,
        "r": float(r.mean()),
        **{f"loss/{name}": mean for name, mean in zip(names, means, strict=True)},
    })  # fmt: skip
