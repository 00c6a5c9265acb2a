"""What is estimated from a fold's training TRs, and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.errors import DataError
from giblet_hpc.files import write_with
from giblet_hpc.modalities.base import SMALLEST_VARIANCE, Modality
from giblet_hpc.splits import Block
from giblet_hpc.training.feed import StudyArrays


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
    modalities: Mapping[str, Modality], study: StudyArrays, blocks: Sequence[Block]
) -> TrainingStatistics:
    """Estimate everything from the training blocks.

    Raises
    ------
    DataError
        When the scans of the training TRs do not vary.
    """
    values: dict[str, NDArray[Any]] = {"bold.variance": _scan_variance(study, blocks)}
    for name, modality in modalities.items():
        rows = rows_of([study.runs[b.run].stimulus[name][b.start : b.stop] for b in blocks])
        estimates = modality.fit(rows, study.shared.get(name))
        values |= {f"{name}.{key}": value for key, value in estimates.items()}
    return TrainingStatistics(values)


def _scan_variance(study: StudyArrays, blocks: Sequence[Block]) -> NDArray[np.float64]:
    """Mean over subjects, blocks and voxels of the variance over valid TRs."""
    variances = []
    for block in blocks:
        run = study.runs[block.run]
        for subject in range(len(study.subjects)):
            valid = run.valid[subject, block.start : block.stop]
            scans = run.bold[subject, block.start : block.stop][valid]
            if len(scans):
                variances.append(scans.var(axis=0, dtype=np.float64).mean())
    if not variances or np.mean(variances) < SMALLEST_VARIANCE:
        raise DataError("the scans of the training TRs do not vary")
    return np.array(np.mean(variances))


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
) -> dict[str, dict[str, NDArray[Any]]]:
    """Return the rows that models see, by run and modality."""
    return {
        run: {
            name: modality.inputs(arrays.stimulus[name], modality.estimates)
            for name, modality in modalities.items()
        }
        for run, arrays in study.runs.items()
    }
