"""What is estimated from a fold's training TRs, and from nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from giblet_hpc.errors import DataError
from giblet_hpc.files import write_with
from giblet_hpc.modalities.base import Modality
from giblet_hpc.modalities.moments import SMALLEST_VARIANCE, mean_and_variance, moments
from giblet_hpc.splits import Block
from giblet_hpc.training.feed import Rows, StudyArrays
from giblet_hpc.training.world import World

PART = 64
"""TRs that are read and added up at a time."""
LANES = 16
"""Among which parts are dealt: at most so many ranks share the work."""
Part = TypeVar("Part")


@dataclass(frozen=True)
class TrainingStatistics:
    """Estimates from the training TRs of one fold.

    Parameters
    ----------
    values : dict of str to ndarray
        ``bold.variance`` (), and ``MODALITY.KEY`` of what each modality has estimated.
    """

    values: Mapping[str, NDArray[Any]]

    @property
    def bold_variance(self) -> float:
        """Mean over subjects, blocks and voxels of the variance over valid TRs."""
        return float(self.values["bold.variance"])

    def of(self, modality: str) -> dict[str, NDArray[Any]]:
        """Return a modality's estimates."""
        mark = f"{modality}."
        return {
            key.removeprefix(mark): value
            for key, value in self.values.items()
            if key.startswith(mark)
        }

    def save(self, path: Path) -> None:
        """Write to an .npz file, atomically."""
        # numpy's stubs take the keyword arguments for its own options.
        write_with(path, lambda handle: np.savez(handle, **self.values))  # type: ignore[arg-type]


def load_statistics(path: Path) -> TrainingStatistics:
    """Read estimates from an .npz file."""
    with np.load(path, allow_pickle=False) as arrays:
        return TrainingStatistics({name: arrays[name] for name in arrays.files})


def rows_of(values: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the rows of several blocks one after the other."""
    return np.concatenate(list(values))


def fit(
    modalities: Mapping[str, Modality],
    study: StudyArrays,
    blocks: Sequence[Block],
    world: World,
) -> TrainingStatistics:
    """Estimate everything from the training blocks, which all ranks read a share of.

    The estimates do not depend on how many ranks there are. Those that are not sums, of all TRs
    together, are made by rank 0; the other ranks do not get them.

    Raises
    ------
    DataError
        When the scans of the training TRs do not vary.
    """
    values: dict[str, NDArray[Any]] = {"bold.variance": _scan_variance(study, blocks, world)}
    parts = [
        (block.run, slice(start, min(start + PART, block.stop)))
        for block in blocks
        for start in range(block.start, block.stop, PART)
    ]
    for name, modality in modalities.items():
        shared = study.shared.get(name)

        def rows(part: tuple[str, slice], name: str = name) -> NDArray[Any]:
            run, trs = part
            return study.runs[run].stimulus[name][trs]

        if modality.additive:
            work = partial(_sums_of_part, modality, shared, rows)
            estimates = modality.settled(_sums_over_ranks(parts, work, world), shared)
        elif world.is_main:
            estimates = modality.fit(map(rows, parts), shared)
        else:
            continue
        values |= {f"{name}.{key}": value for key, value in estimates.items()}
    return TrainingStatistics(values)


def _sums_of_part(
    modality: Modality,
    shared: NDArray[Any] | None,
    rows: Callable[[tuple[str, slice]], NDArray[Any]],
    part: tuple[str, slice],
) -> dict[str, NDArray[Any]]:
    return modality.sums(rows(part), shared)


def _sums_over_ranks(
    parts: Sequence[Part], work: Callable[[Part], dict[str, NDArray[Any]]], world: World
) -> dict[str, NDArray[np.float64]]:
    """Add up what is found in all parts, in an order that does not depend on the ranks.

    Parts are dealt to `LANES`, lanes to ranks; each lane is added up in the order of its parts,
    and lanes in their own.
    """
    # The first part tells every rank the shapes.
    first = work(parts[0])
    flat = np.zeros((LANES, sum(value.size for value in first.values())))
    for number, part in enumerate(parts):
        lane = number % LANES
        if lane % world.size == world.rank:
            found = first if number == 0 else work(part)
            flat[lane] += np.concatenate([np.ravel(value) for value in found.values()])
    all_lanes = world.sum(torch.from_numpy(flat).to(world.device)).cpu().numpy()
    total = np.zeros(flat.shape[1])
    for lane in all_lanes:
        total += lane
    pieces = np.split(total, np.cumsum([value.size for value in first.values()])[:-1])
    return {
        name: piece.reshape(value.shape)
        for (name, value), piece in zip(first.items(), pieces, strict=True)
    }


def _scan_variance(
    study: StudyArrays, blocks: Sequence[Block], world: World
) -> NDArray[np.float64]:
    """Mean over subjects, blocks and voxels of the variance over valid TRs."""

    def variance(part: tuple[Block, int]) -> dict[str, NDArray[Any]]:
        block, subject = part
        run, found = study.runs[block.run], None
        for start in range(block.start, block.stop, PART):
            trs = slice(start, min(start + PART, block.stop))
            valid = run.valid[subject, trs]
            if valid.any():
                sums = moments(run.bold[subject, trs][valid])
                found = sums if found is None else {k: found[k] + v for k, v in sums.items()}
        if found is None:
            return {"variance": np.zeros(()), "count": np.zeros(())}
        return {"variance": mean_and_variance(found)[1].mean(), "count": np.ones(())}

    everything = [(block, subject) for block in blocks for subject in range(len(study.subjects))]
    found = _sums_over_ranks(everything, variance, world)
    mean = found["variance"] / np.maximum(found["count"], 1)
    if mean < SMALLEST_VARIANCE:
        raise DataError("the scans of the training TRs do not vary")
    return np.array(mean)


def fitted_modalities(
    modalities: Mapping[str, Modality], study: StudyArrays, statistics: TrainingStatistics
) -> dict[str, Modality]:
    """Return the modalities bound to their estimates and to the shapes that a model sees."""
    first = next(iter(study.runs.values()))
    bound = {}
    for name, modality in modalities.items():
        estimates = statistics.of(name)
        shape = modality.inputs(first.stimulus[name][:1], estimates).shape[1:]
        bound[name] = modality.fitted(shape, estimates)
    return bound


def model_inputs(
    modalities: Mapping[str, Modality], study: StudyArrays
) -> dict[str, dict[str, Rows]]:
    """Return the rows that models see, by run and modality."""

    def seen(rows: Rows, modality: Modality) -> Rows:
        if not modality.projects:
            return rows
        return in_parts(rows, lambda some: modality.inputs(some, modality.estimates))

    return {
        run: {name: seen(arrays.stimulus[name], kind) for name, kind in modalities.items()}
        for run, arrays in study.runs.items()
    }


def in_parts(
    rows: Rows, work: Callable[[NDArray[Any]], NDArray[Any]], size: int = 256
) -> NDArray[Any]:
    """Return what is made of rows, a part at a time."""
    starts = range(0, rows.shape[0], size)
    return np.concatenate([work(rows[start : start + size]) for start in starts])
