"""Decoding: a linear map from scans to the network's bottleneck, from where its decoders go on.

Ridge in its dual form: all that is needed of the scans is how alike TRs are, so that a set of
voxels can be silenced afterwards without fitting anything again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from giblet_hpc.config.evaluate import DECODED_SECONDS
from giblet_hpc.errors import DataError
from giblet_hpc.evaluation.blocks import over_ranks, scans_of, voxel_blocks, voxel_share
from giblet_hpc.evaluation.penalised import usable_blocks
from giblet_hpc.evaluation.prediction import first_rows
from giblet_hpc.files import write_with
from giblet_hpc.splits import Block
from giblet_hpc.training.feed import StudyArrays
from giblet_hpc.training.predictor import Predictor
from giblet_hpc.training.windows import covering_windows
from giblet_hpc.training.world import World

PENALTIES = tuple(10.0**k for k in np.arange(-4, 3.5, 0.5))
"""To choose from, as multiples of the mean similarity of a TR with itself."""
FOLDS = 5
Blocks = Sequence[Block]


@dataclass(frozen=True)
class Decoder:
    """From scans to the bottleneck.

    Parameters
    ----------
    weights : ndarray, shape (training trs, Z)
        Of the similarity with each training TR.
    mean : ndarray, shape (Z,)
        Of the bottleneck over training TRs.
    trained : tuple of Block
        The training TRs.
    scans : int
        How many, from a TR's own on, it is decoded from.
    penalty : float
        As a multiple of the mean similarity of a TR with itself.
    """

    weights: NDArray[np.float32]
    mean: NDArray[np.float32]
    trained: tuple[Block, ...]
    scans: int
    penalty: float

    def __call__(self, alike: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the bottleneck (trs, Z) from similarities (trs, training trs)."""
        return np.asarray(alike @ self.weights + self.mean, dtype=np.float32)

    def save(self, file: Path) -> None:
        """Write it as a .npz file."""
        arrays: dict[str, Any] = {
            "weights": self.weights, "mean": self.mean,
            "runs": np.array([block.run for block in self.trained]),
            "bounds": np.array([[block.start, block.stop] for block in self.trained]),
            "scans": np.array(self.scans), "penalty": np.array(self.penalty),
        }  # fmt: skip
        write_with(file, lambda handle: np.savez(handle, **arrays))


def load_decoder(file: Path) -> Decoder:
    """Return what `Decoder.save` wrote."""
    with np.load(file) as found:
        places = zip(found["runs"], found["bounds"], strict=True)
        blocks = tuple(Block(str(run), int(start), int(stop)) for run, (start, stop) in places)
        return Decoder(
            found["weights"], found["mean"], blocks, int(found["scans"]), float(found["penalty"])
        )


def scans_after(tr: float) -> int:
    """Return how many scans say what was shown in a TR of ``tr`` seconds: from its own on."""
    return math.ceil(DECODED_SECONDS / tr) + 1


def similarity(
    study: StudyArrays,
    rows: Blocks,
    columns: Blocks,
    *,
    scans: int,
    world: World,
    sets: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Return how alike TRs are in what is scanned from each on.

    The product of the scans of one TR and those after it with the scans of another, summed over
    voxels and subjects; what is beyond a block's end, and scans that are missing, count as 0, the
    mean. Ranks share the voxels.

    Parameters
    ----------
    study : StudyArrays
    rows, columns : sequence of Block
    scans : int
        How many.
    world : World
    sets : ndarray of bool, shape (sets, voxels), optional
        Of which voxels; by default one set of all.

    Returns
    -------
    ndarray, shape (sets, trs of rows, trs of columns)
    """
    wanted = np.ones((1, study.voxels), bool) if sets is None else sets
    products = np.zeros((len(wanted), _trs(rows), _trs(columns)))
    for subject in range(len(study.subjects)):
        for voxels in voxel_blocks(voxel_share(study.voxels, world)):
            left = _known_scans(study, subject, rows, voxels)
            right = left if rows is columns else _known_scans(study, subject, columns, voxels)
            for number, inside in enumerate(wanted[:, voxels]):
                if inside.all():
                    products[number] += left @ right.T
                elif inside.any():
                    products[number] += left[:, inside] @ right[:, inside].T
    alike = over_ranks(products, world)
    products = alike.copy()
    # Lag 0 is there. What is beyond a block's end is nothing.
    for lag in range(1, scans):
        pairs = itertools.product(_shifted(rows, lag), _shifted(columns, lag))
        for (row, later_row), (column, later_column) in pairs:
            alike[:, row, column] += products[:, later_row, later_column]
    return alike


def _known_scans(
    study: StudyArrays, subject: int, blocks: Blocks, voxels: slice
) -> NDArray[np.float32]:
    scans, valid = scans_of(study, subject, blocks, voxels)
    return np.where(valid[:, None], scans, np.float32(0))


def _trs(blocks: Blocks) -> int:
    return sum(block.trs for block in blocks)


def _shifted(blocks: Blocks, lag: int) -> list[tuple[slice, slice]]:
    """Return, for each block, the rows that have one ``lag`` TRs later, and those."""
    found, first = [], 0
    for block in blocks:
        if block.trs > lag:
            last = first + block.trs
            found.append((slice(first, last - lag), slice(first + lag, last)))
        first += block.trs
    return found


@torch.inference_mode()
def bottleneck(predictor: Predictor, blocks: Blocks, world: World) -> NDArray[np.float64]:
    """Return the network's bottleneck of every TR of some blocks, (trs, Z); ranks share them."""
    length = predictor.config.train.window_trs
    found = np.zeros((_trs(blocks), predictor.config.model.bottleneck))
    first = first_rows(blocks)
    windows = covering_windows(blocks, length)
    for window in windows[world.rank :: world.size]:
        batch = predictor.reader([window])
        made = predictor.predict(batch).bottleneck[0, -batch.bold.shape[1] :]
        count = min(length, window.block.stop - window.start)
        row = first[window.block] + window.start - window.block.start
        found[row : row + count] = made[:count].float().cpu().numpy()
    return over_ranks(found, world)


def fit(
    alike: NDArray[np.float64],
    wanted: NDArray[np.float64],
    blocks: Blocks,
    *,
    scans: int,
) -> Decoder:
    """Fit the map; its penalty is chosen by purged, contiguous blocks of the training TRs.

    Parameters
    ----------
    alike : ndarray, shape (trs, trs)
        From `similarity`.
    wanted : ndarray, shape (trs, Z)
        From `bottleneck`.
    blocks : sequence of Block
        The training TRs.
    scans : int

    Raises
    ------
    DataError
        When there are too few TRs with scans.
    """
    known = np.flatnonzero(np.diag(alike) > 0)
    pairs = usable_blocks(len(known), FOLDS, scans)
    if not pairs:
        raise DataError(
            f"{len(known)} training TRs with scans are too few to fit a decoder on",
            hint="set evaluate.decode to false",
        )
    unit = float(np.diag(alike)[known].mean())
    errors = np.zeros(len(PENALTIES))
    for fitted, held_out in pairs:
        rows, out = known[fitted], known[held_out]
        mean = wanted[rows].mean(axis=0)
        turned = _turned(alike[np.ix_(rows, rows)], wanted[rows] - mean)
        across = alike[np.ix_(out, rows)]
        for number, size in enumerate(PENALTIES):
            made = across @ _solution(*turned, unit * size) + mean
            errors[number] += np.square(made - wanted[out]).sum()
    best = int(errors.argmin())
    mean = wanted[known].mean(axis=0)
    turned = _turned(alike[np.ix_(known, known)], wanted[known] - mean)
    weights = np.zeros(wanted.shape, np.float32)
    weights[known] = _solution(*turned, unit * PENALTIES[best])
    return Decoder(weights, mean.astype(np.float32), tuple(blocks), scans, PENALTIES[best])


Turned = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def _turned(alike: NDArray[np.float64], wanted: NDArray[np.float64]) -> Turned:
    """Return eigenvalues and eigenvectors of similarities, and what is wanted of each of these."""
    values, vectors = np.linalg.eigh(alike)
    # Rounding leaves tiny negative values of what is positive.
    return np.maximum(values, 0.0), vectors, vectors.T @ wanted


def _solution(
    values: NDArray[np.float64],
    vectors: NDArray[np.float64],
    wanted: NDArray[np.float64],
    penalty: float,
) -> NDArray[np.float64]:
    """Return ridge's dual weights."""
    solved: NDArray[np.float64] = vectors @ (wanted / (values + penalty)[:, None])
    return solved
