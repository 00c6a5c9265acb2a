"""An orthonormal basis of what the training TRs' films span, for the dense model's first layer.

With fewer training TRs than pixels, the gradient of a first layer of all pixels never leaves that
span: a layer of its coordinates learns the same map with a thousandth of the weights.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from giblet_hpc.errors import DataError
from giblet_hpc.modalities.base import SPAN, Modality
from giblet_hpc.splits import Block
from giblet_hpc.training.feed import StudyArrays
from giblet_hpc.training.statistics import TrainingStatistics

logger = logging.getLogger(__name__)
MOST_TRS = 4096
"""TRs that the basis is made of; of more, those at even distances."""
PART = 64
SMALLEST = 1e-6
"""Singular values below this share of the largest are those of rounding."""


def with_span(
    statistics: TrainingStatistics,
    modalities: Mapping[str, Modality],
    study: StudyArrays,
    blocks: Sequence[Block],
    *,
    components: int,
    device: torch.device,
) -> TrainingStatistics:
    """Return estimates with the directions that those modalities span which can be seen in them."""
    found = {
        f"{name}.{SPAN}": fit_span(study, blocks, name, components=components, device=device)
        for name, modality in modalities.items()
        if modality.spanned
    }
    return TrainingStatistics({**statistics.values, **found})


def fit_span(
    study: StudyArrays,
    blocks: Sequence[Block],
    modality: str,
    *,
    components: int,
    device: torch.device,
) -> NDArray[np.float16]:
    """Return the first principal directions of the training TRs' rows, uncentred.

    By way of the products of rows with each other (Sirovich 1987), in two passes over the rows.

    Parameters
    ----------
    study : StudyArrays
    blocks : sequence of Block
    modality : str
        Whose rows are bytes.
    components : int
        At most so many.
    device : torch.device
        Does the products.

    Returns
    -------
    ndarray, shape (values of a row, components)
        In units of a row's ``values ** -0.5``, as float16 holds no smaller numbers well.

    Raises
    ------
    DataError
        When the rows are all zero.
    """
    places = [(block.run, tr) for block in blocks for tr in range(block.start, block.stop)]
    if len(places) > MOST_TRS:
        kept = np.linspace(0, len(places) - 1, MOST_TRS).round().astype(int)
        places = [places[number] for number in kept]
        logger.info("model.span: of %d of the training TRs", MOST_TRS)

    def parts() -> Iterator[tuple[slice, torch.Tensor]]:
        for start in range(0, len(places), PART):
            rows = [study.runs[run].stimulus[modality][tr : tr + 1].reshape(1, -1)
                    for run, tr in places[start : start + PART]]  # fmt: skip
            some = torch.from_numpy(np.concatenate(rows)).to(device).float() / 255
            yield slice(start, start + len(rows)), some

    products = torch.zeros(len(places), len(places), device=device, dtype=torch.float64)
    for here, some in parts():
        for there, others in parts():
            if there.start > here.start:
                break
            found = (some @ others.T).double()
            products[here, there], products[there, here] = found, found.T
    squares, directions = torch.linalg.eigh(products)
    largest = squares[-1].clamp(min=0).sqrt()
    if largest == 0:
        raise DataError(f"the {modality} of all training TRs is black")
    values = squares.clamp(min=0).sqrt().flip(0)[:components]
    values = values[values > SMALLEST * largest]
    chosen = (directions.flip(1)[:, : len(values)] / values).float()
    basis = 0.0
    for here, some in parts():
        basis = basis + some.T @ chosen[here]
    assert isinstance(basis, torch.Tensor)
    shown = float(values.square().sum() / squares.sum())
    logger.info("model.span: %d components, %.2f %% of the power", len(values), 100 * shown)
    result: NDArray[Any] = (basis * basis.shape[0] ** 0.5).half().cpu().numpy()
    return result
