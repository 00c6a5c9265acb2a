"""A study in memory, and windows of it in an order that depends on seed and epoch only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from giblet_hpc.config import RunConfig
from giblet_hpc.errors import StoreError
from giblet_hpc.models.shapes import Batch
from giblet_hpc.splits import Block
from giblet_hpc.store import FeatureStore

GROUP_MEAN = "mean"


@dataclass(frozen=True)
class RunArrays:
    """One scan run: stimulus and scans on the same TRs."""

    stimulus: dict[str, NDArray[Any]]
    """Arrays of shape (trs, ...)."""
    bold: NDArray[np.float32]
    """(subjects, trs, voxels), at the time of scanning: a shift of the files is undone."""
    valid: NDArray[np.bool_]
    """(subjects, trs): there is a scan."""


@dataclass(frozen=True)
class StudyArrays:
    """All of a study that training and evaluation use."""

    runs: dict[str, RunArrays]
    subjects: tuple[str, ...]
    """Names, or `mean` alone in the mode cross_subject."""
    mask: NDArray[np.bool_]
    affine: NDArray[np.float64]
    words: tuple[str, ...]
    """Vocabulary of the text's word counts; empty for embeddings."""
    codebooks: NDArray[np.float32] | None
    """(Q, 1024, 128): the vectors that audio codes stand for; None without codes."""

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return int(self.mask.sum())


def load_study(
    config: RunConfig, inputs: Mapping[str, Any], *, per_subject: bool | None = None
) -> StudyArrays:
    """Read a study's features and scans from its store.

    Parameters
    ----------
    config : RunConfig
    inputs : mapping
        What preprocess settled for the run: ``subjects``, and ``parts`` with fingerprints.
    per_subject : bool, optional
        Override of ``bold.mode``.

    Raises
    ------
    StoreError
        When a part is missing, incomplete, or made anew with other settings since.
    """
    assert config.study.store is not None
    store = FeatureStore(config.study.store)
    for name, fingerprint in inputs["parts"].items():
        if store.part(name).fingerprint != fingerprint:
            raise StoreError(
                f"{store.path}: `{name}` was made anew with other settings since this run's "
                "preprocess",
                hint="run preprocess for this run again, with a store of its own "
                "(study.store) if another run uses this one",
            )
    first = config.study.runs[0].name
    subjects = tuple(inputs["subjects"])
    separate = config.bold.mode == "per_subject" if per_subject is None else per_subject
    runs = {}
    for run in config.study.runs:
        stimulus = {
            name: store.read(f"stimulus/{run.name}/{name}") for name in config.features.modalities
        }
        bold, valid = _read_scans(store, subjects, run.name, separate=separate)
        runs[run.name] = RunArrays(stimulus, *unshifted(bold, valid, config.bold.shifted_trs))
    audio = config.features.audio
    words: tuple[str, ...] = ()
    if config.features.text:
        words = tuple(store.part(f"stimulus/{first}/text").attributes["words"])
    return StudyArrays(
        runs,
        subjects if separate else (GROUP_MEAN,),
        store.read("mask").astype(bool),
        np.array(store.part("mask").attributes["affine"]),
        words,
        store.read("codebooks") if audio and audio.kind == "codes" else None,
    )


def _read_scans(
    store: FeatureStore, subjects: Sequence[str], run: str, *, separate: bool
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    valid = np.stack([store.read(f"valid/{name}/{run}") for name in subjects]).astype(bool)
    if separate:
        return np.stack([store.read(f"bold/{name}/{run}") for name in subjects]), valid
    total = np.zeros(store.part(f"bold/{subjects[0]}/{run}").shape, dtype=np.float32)
    for name in subjects:
        total += store.read(f"bold/{name}/{run}")
    count = valid.sum(axis=0)
    mean = total / np.maximum(count, 1)[:, None]
    return mean[None].astype(np.float32), (count > 0)[None]


def unshifted(
    bold: NDArray[np.float32], valid: NDArray[np.bool_], trs: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Move scans that were shifted earlier by ``trs`` back to when they were taken.

    The first ``trs`` rows have no scan then, and the last ``trs`` of the file, which answer to
    the stimulus after the run's end, fall off.
    """
    if trs == 0:
        return bold, valid
    moved, there = np.zeros_like(bold), np.zeros_like(valid)
    moved[:, trs:], there[:, trs:] = bold[:, :-trs], valid[:, :-trs]
    return moved, there


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
    trs : int
        Target TRs of a window.
    context : int
        TRs before them that the model also sees.
    text : dict of str to ndarray, optional
        Text features to use in place of the stored ones, by run: (trs, D).
    device : torch.device
    """

    def __init__(
        self,
        study: StudyArrays,
        *,
        trs: int,
        context: int,
        text: dict[str, NDArray[np.float32]] | None,
        device: torch.device,
    ) -> None:
        self.trs = trs
        self._context = context
        self._device = device
        self._runs = {
            name: (
                {
                    key: torch.from_numpy(text[name] if text and key == "text" else values)
                    for key, values in run.stimulus.items()
                },
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
        there = _padded(valid[:, targets].T, 0, stop - b)
        scans = _padded(bold[:, targets].transpose(0, 1), 0, stop - b)
        return cut, inside, scans, there


def _padded(values: torch.Tensor, before: int, after: int) -> torch.Tensor:
    if before == 0 and after == 0:
        return values
    out = values.new_zeros(before + values.shape[0] + after, *values.shape[1:])
    out[before : before + values.shape[0]] = values
    return out
