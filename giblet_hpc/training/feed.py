"""A study in memory, one copy a node, and windows of it in an order by seed and epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import StoreError
from giblet_hpc.models.shapes import Batch
from giblet_hpc.splits import Block
from giblet_hpc.store import FeatureStore
from giblet_hpc.training.node_memory import PrivateMemory

GROUP_MEAN = "mean"
Allocate = Callable[..., Any]


@dataclass(frozen=True)
class RunArrays:
    """One scan run: stimulus and scans on the same TRs."""

    stimulus: Mapping[str, NDArray[Any]]
    """Arrays of shape (trs, ...), as they are stored."""
    bold: NDArray[np.float32]
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
    affine: NDArray[np.float64]
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
    memory: PrivateMemory | None = None,
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
        Where the arrays are put; `NodeMemory` holds one copy for all ranks of a node.
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
    memory = memory or PrivateMemory()
    subjects = tuple(inputs["subjects"])
    separate = config.bold.mode == "per_subject" if per_subject is None else per_subject
    runs = {}
    for run in config.study.runs:
        stimulus = {}
        for name in config.features.modalities:
            spec = store.array(f"stimulus/{run.name}/{name}")
            stimulus[name] = memory.array(
                spec.name, spec.shape, spec.dtype, partial(store.read, spec.name)
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
        np.array(store.array("mask").attributes["affine"]),
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
    memory: PrivateMemory,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
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

    if separate:
        scans = memory.array(f"bold/{run}", (len(subjects), trs, voxels), "float32", each)
    else:
        scans = memory.array(f"mean/{run}", (1, trs, voxels), "float32", mean)
        valid = anyone
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


class Window(NamedTuple):
    """Target TRs of a sample."""

    block: Block
    """The block it lies in; its context never reaches outside."""
    start: int
    """First target TR, in the run."""


def epoch_windows(blocks: Sequence[Block], trs: int, *, seed: int, epoch: int) -> list[Window]:
    """Return the windows of a training epoch, in order.

    Each block is cut from a random start into windows of ``trs``; the same number every epoch.
    A stretch too short for another window is covered by one that overlaps its neighbour.
    """
    random = np.random.default_rng([seed, epoch])
    windows = []
    for block in blocks:
        count = max(1, block.trs // trs)
        slack = max(0, min(trs, block.trs) if count > 1 else block.trs - trs)
        offset = int(random.integers(slack + 1)) if block.trs >= trs else 0
        starts = [block.start + offset + k * trs for k in range(count)]
        if starts[-1] + trs > block.stop and count > 1:
            starts[-1] = int(random.choice([block.start, block.stop - trs]))
        windows += [Window(block, start) for start in starts]
    return [windows[i] for i in random.permutation(len(windows))]


def covering_windows(blocks: Sequence[Block], trs: int) -> list[Window]:
    """Return windows that cover every TR of the blocks once; the last of a block may overhang."""
    return [
        Window(block, start) for block in blocks for start in range(block.start, block.stop, trs)
    ]


class WindowReader:
    """Cuts windows out of the study and stacks them to batches.

    Parameters
    ----------
    study : StudyArrays
    inputs : mapping of str to mapping of str to ndarray
        The rows that the model sees, by run and modality: (trs, ...).
    trs : int
        Target TRs of a window.
    context : int
        TRs before them that the model also sees.
    device : torch.device
    """

    def __init__(
        self,
        study: StudyArrays,
        inputs: Mapping[str, Mapping[str, NDArray[Any]]],
        *,
        trs: int,
        context: int,
        device: torch.device,
    ) -> None:
        self.trs = trs
        self._context = context
        self._device = device
        self._runs = {
            name: (
                {key: torch.from_numpy(values) for key, values in inputs[name].items()},
                torch.from_numpy(run.bold),
                torch.from_numpy(run.valid),
            )
            for name, run in study.runs.items()
        }

    def __call__(self, windows: Sequence[Window]) -> Batch:
        """Return a batch; TRs outside a window's block are zero and marked."""
        rows = [self._one(window) for window in windows]
        stimulus = {
            name: torch.stack([row[0][name] for row in rows]).to(self._device, non_blocking=True)
            for name in rows[0][0]
        }
        inside, bold, valid = (
            torch.stack([row[i] for row in rows]).to(self._device, non_blocking=True)  # type: ignore[misc]
            for i in (1, 2, 3)
        )
        return Batch(stimulus, inside, bold, valid)

    def _one(
        self, window: Window
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor]:
        stimulus, bold, valid = self._runs[window.block.run]
        first = window.start - self._context
        stop = window.start + self.trs
        a, b = max(first, window.block.start), min(stop, window.block.stop)
        inside = torch.zeros(stop - first, dtype=torch.bool)
        inside[a - first : b - first] = True
        cut = {name: _padded(values[a:b], a - first, stop - b) for name, values in stimulus.items()}
        targets = slice(window.start, b)
        mask = _padded(valid[:, targets].T, 0, stop - b)
        scans = _padded(bold[:, targets].transpose(0, 1), 0, stop - b)
        return cut, inside, scans, mask


def _padded(values: torch.Tensor, before: int, after: int) -> torch.Tensor:
    if before == 0 and after == 0:
        return values
    out = values.new_zeros(before + values.shape[0] + after, *values.shape[1:])
    out[before : before + values.shape[0]] = values
    return out
