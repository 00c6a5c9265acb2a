"""A study in memory, one copy a node, and windows of it in an order by seed and epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import StoreError
from giblet_hpc.scans.base import Space
from giblet_hpc.scans.recordings import restored_space
from giblet_hpc.store import FeatureStore
from giblet_hpc.training.node_memory import PrivateMemory
from giblet_hpc.training.stored_rows import StoredRows, StoredScans

GROUP_MEAN = "mean"


class Rows(Protocol):
    """An array, or what is read from the store where it is indexed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As that of an array."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """As that of an array."""

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Return some rows as an array."""


@dataclass(frozen=True)
class RunArrays:
    """One scan run: stimulus and scans on the same TRs."""

    stimulus: Mapping[str, Rows]
    """Arrays of shape (trs, ...), as they are stored."""
    bold: Rows
    """(subjects, trs, voxels), at the time of scanning: a shift of the files is undone."""
    valid: NDArray[np.bool_]
    """(subjects, trs): there is a scan."""


@dataclass(frozen=True)
class StudyArrays:
    """All of a study that training and evaluation use."""

    runs: Mapping[str, RunArrays]
    subjects: tuple[str, ...]
    """Names, or `mean` alone in the mode cross_subject."""
    mask: NDArray[np.bool_]
    space: Space
    """Where the voxels of the mask lie."""
    shared: Mapping[str, NDArray[Any]]
    """What the rows of a modality refer to, for modalities that have it."""

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return int(self.mask.sum())


def load_study(
    config: RunConfig,
    inputs: Mapping[str, Any],
    *,
    memory: PrivateMemory | None,
    per_subject: bool | None = None,
) -> StudyArrays:
    """Read a study's features and scans from its store.

    Parameters
    ----------
    config : RunConfig
    inputs : mapping
        What preprocess settled for the run: ``subjects``, ``arrays`` with fingerprints, and
        ``content`` with digests of their values.
    memory : PrivateMemory, optional
        Where the arrays are put; `NodeMemory` holds one copy for all ranks of a node. None: they
        stay in the store, from which rows are read when they are asked for.
    per_subject : bool, optional
        Override of ``bold.mode``.

    Raises
    ------
    StoreError
        When an array is missing, incomplete, made anew with other settings, or changed since.
    """
    assert config.study.store is not None
    store = FeatureStore(config.study.store)
    _require_unchanged(store, inputs)
    subjects = tuple(inputs["subjects"])
    separate = config.bold.mode == "per_subject" if per_subject is None else per_subject
    runs = {}
    for run in config.study.runs:
        stimulus = {}
        for name in config.features.modalities:
            spec = store.array(f"stimulus/{run.name}/{name}")
            stimulus[name] = (
                memory.array(spec.name, spec.shape, spec.dtype, partial(store.read, spec.name))
                if memory is not None
                else StoredRows(store, spec.name)
            )
        runs[run.name] = RunArrays(
            stimulus, *_read_scans(store, subjects, run.name, config, separate, memory)
        )
    shared = {
        name: store.read(f"shared/{name}")
        for name in config.features.modalities
        if f"shared/{name}" in inputs["arrays"]
    }
    return StudyArrays(
        runs,
        subjects if separate else (GROUP_MEAN,),
        store.read("mask").astype(bool),
        restored_space(store.array("mask").shape, store.array("mask").attributes),
        shared,
    )


def _require_unchanged(store: FeatureStore, inputs: Mapping[str, Any]) -> None:
    for name, fingerprint in inputs["arrays"].items():
        if store.array(name).fingerprint != fingerprint:
            raise StoreError(
                f"{store.path}: `{name}` was made anew with other settings since this run's "
                "preprocess",
                hint="run preprocess for this run again, with a store of its own "
                "(study.store) if another run uses this one",
            )
        if store.content(name) != inputs["content"][name]:
            raise StoreError(
                f"{store.path}: `{name}` holds other values than when this run's preprocess ended",
                hint="if they were changed on purpose, run preprocess for this run again; its "
                "results of the old values are set aside then",
            )


def _read_scans(
    store: FeatureStore,
    subjects: Sequence[str],
    run: str,
    config: RunConfig,
    separate: bool,
    memory: PrivateMemory | None,
) -> tuple[Rows, NDArray[np.bool_]]:
    """Return a run's scans and which of them there are, a shift of the files undone."""
    valid = np.stack([store.read(f"valid/{name}/{run}") for name in subjects]).astype(bool)
    trs, voxels = store.array(f"bold/{subjects[0]}/{run}").shape
    shift = config.bold.shifted_trs
    anyone = np.asarray(valid.any(axis=0, keepdims=True))

    def each(out: NDArray[np.float32]) -> None:
        for number, name in enumerate(subjects):
            out[number], _ = unshifted(
                store.read(f"bold/{name}/{run}")[None], valid[number : number + 1], shift
            )

    def mean(out: NDArray[np.float32]) -> None:
        total = np.zeros((trs, voxels), dtype=np.float32)
        for name in subjects:
            total += store.read(f"bold/{name}/{run}")
        average = total / np.maximum(valid.sum(axis=0), 1)[:, None]
        out[:], _ = unshifted(average[None].astype(np.float32), anyone, shift)

    scans: Rows
    if memory is None:
        counts = None if separate else valid.sum(axis=0)
        scans = StoredScans(store, subjects, run, shift=shift, counts=counts)
    elif separate:
        scans = memory.array(f"bold/{run}", (len(subjects), trs, voxels), "float32", each)
    else:
        scans = memory.array(f"mean/{run}", (1, trs, voxels), "float32", mean)
    valid = valid if separate else anyone
    _, kept = unshifted(np.zeros((*valid.shape, 0), np.float32), valid, shift)
    return scans, kept


def unshifted(
    bold: NDArray[np.float32], valid: NDArray[np.bool_], trs: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Move scans that were shifted earlier by ``trs`` back to when they were taken.

    The first ``trs`` rows have no scan then, and the last ``trs`` of the file, which answer to
    the stimulus after the run's end, fall off.
    """
    if trs == 0:
        return bold, valid
    moved, kept = np.zeros_like(bold), np.zeros_like(valid)
    moved[:, trs:], kept[:, trs:] = bold[:, :-trs], valid[:, :-trs]
    return moved, kept
