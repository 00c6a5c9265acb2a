"""Lesions: what becomes of the decoded stimulus when a part of the brain, or of the network, is
silent.

Voxels are silenced in the scans of the test TRs, before the map to the bottleneck; units at the
bottleneck itself. Both mean that they stay at their mean. Each lesion is held against random ones
of the same size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from giblet_hpc.evaluation import decoding
from giblet_hpc.evaluation.prediction import Figures, add_figures, first_rows, reconstruction_scores
from giblet_hpc.models.shapes import Batch
from giblet_hpc.splits import Block
from giblet_hpc.training.feed import StudyArrays
from giblet_hpc.training.predictor import Predictor
from giblet_hpc.training.windows import Window
from giblet_hpc.training.world import World

TOGETHER_BYTES = 2**28
"""Of the similarities that are computed in one pass over the scans."""


@dataclass(frozen=True)
class Lesion:
    """What is silent.

    Parameters
    ----------
    name : str
    places : ndarray of bool, shape (voxels,) or (Z,)
    """

    name: str
    places: NDArray[np.bool_]

    @property
    def size(self) -> int:
        """How many voxels, or units."""
        return int(self.places.sum())

    def random(self, count: int, *, seed: int) -> NDArray[np.bool_]:
        """Return as large ones at random places, (count, places)."""
        random = np.random.default_rng([seed, self.size])
        found = np.zeros((count, len(self.places)), bool)
        for row in found:
            row[random.choice(len(row), self.size, replace=False)] = True
        return found


def blocks_of(windows: Sequence[Window], trs: int) -> list[Block]:
    """Return the target TRs of windows as blocks."""
    return [Block(w.block.run, w.start, min(w.block.stop, w.start + trs)) for w in windows]


class Silencing:
    """Voxels that are silent in the scans of some windows.

    Parameters
    ----------
    study : StudyArrays
    decoder : Decoder
    windows : sequence of Window
    trs : int
        Of a window.
    world : World
    """

    def __init__(
        self,
        study: StudyArrays,
        decoder: decoding.Decoder,
        windows: Sequence[Window],
        *,
        trs: int,
        world: World,
    ) -> None:
        self._study, self._decoder, self._world = study, decoder, world
        # Scans after a window's end say what was shown in it.
        self._rows = [
            block._replace(stop=min(window.block.stop, block.stop + decoder.scans - 1))
            for block, window in zip(blocks_of(windows, trs), windows, strict=True)
        ]
        lengths = [block.trs for block in blocks_of(windows, trs)]
        starts = np.cumsum([0, *(block.trs for block in self._rows)])[:-1]
        self._kept = np.concatenate(
            [start + np.arange(n) for start, n in zip(starts, lengths, strict=True)]
        )
        every = np.ones((1, study.voxels), bool)
        self.intact = self._part(every)[0] + decoder.mean

    def __call__(self, sets: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return the bottleneck with each set of voxels silent, (sets, trs, Z)."""
        size = 8 * sum(b.trs for b in self._rows) * sum(b.trs for b in self._decoder.trained)
        together = max(1, TOGETHER_BYTES // size)
        parts = [
            self._part(sets[start : start + together]) for start in range(0, len(sets), together)
        ]
        return np.asarray(self.intact - np.concatenate(parts), dtype=np.float32)

    def _part(self, sets: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return what sets of voxels add to the bottleneck, (sets, trs, Z): the map is linear."""
        alike = decoding.similarity(
            self._study, self._rows, self._decoder.trained, scans=self._decoder.scans,
            world=self._world, sets=sets,
        )  # fmt: skip
        return np.asarray(alike[:, self._kept] @ self._decoder.weights, dtype=np.float32)


def silent_units(
    intact: NDArray[np.float32], mean: NDArray[np.float32], sets: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return the bottleneck (trs, Z) with each set of units at its mean, (sets, trs, Z)."""
    return np.where(sets[:, None, :], mean, intact[None])


class Effects:
    """What the decoders make of the bottleneck, intact and with something silent.

    Parameters
    ----------
    predictor : Predictor
    windows : sequence of Window
    note : callable
        Called with the number of windows that are done.
    """

    def __init__(
        self,
        predictor: Predictor,
        windows: Sequence[Window],
        *,
        note: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._predictor, self._windows, self._note = predictor, windows, note
        self._length = predictor.config.train.window_trs
        self._first = first_rows(blocks_of(windows, self._length))

    @torch.inference_mode()
    def of(
        self, intact: NDArray[np.float32], silent: NDArray[np.float32]
    ) -> tuple[Figures, list[Figures]]:
        """Return the figures of the intact bottleneck, and of each silenced one.

        Parameters
        ----------
        intact : ndarray, shape (trs, Z)
        silent : ndarray, shape (sets, trs, Z)

        Returns
        -------
        dict
            Of the intact one.
        list of dict
            Of each set; with ``moved``: the mean squared change of the reconstruction, as a
            multiple of its variance over the windows' TRs.
        """
        assert len(intact) == sum(b.trs for b in blocks_of(self._windows, self._length))
        names = list(self._predictor.reconstructed)
        every: list[Figures] = [{n: {} for n in names} for _ in range(len(silent) + 1)]
        moments = {name: _Moments() for name in names}
        total = 0.0
        for number, window in enumerate(self._windows, 1):
            rows, batch = self._rows(window), self._predictor.reader([window])
            made = self._made(batch, intact[rows], every[0])
            for name in names:
                moments[name].add(made[name])
            for figures, values in zip(every[1:], silent, strict=True):
                other = self._made(batch, values[rows], figures)
                for name in names:
                    change = (other[name] - made[name]).square().sum()
                    figures[name]["moved"] = figures[name].get("moved", 0.0) + float(change)
            total += rows.stop - rows.start
            self._note(number)
        for figures in every:
            for name, own in figures.items():
                for key in own:
                    own[key] /= moments[name].spread() if key == "moved" else total
        return every[0], every[1:]

    def _rows(self, window: Window) -> slice:
        (block,) = blocks_of([window], self._length)
        start = self._first[block]
        return slice(start, start + block.trs)

    def _made(
        self, batch: Batch, bottleneck: NDArray[np.float32], figures: Figures
    ) -> dict[str, torch.Tensor]:
        """Decode a window, add its figures, and return what is decoded of its TRs."""
        predictor = self._predictor
        positions = predictor.positions(None)
        held = np.zeros((batch.bold.shape[1], bottleneck.shape[1]), np.float32)
        held[: len(bottleneck)] = bottleneck
        made = predictor.reconstruct(torch.from_numpy(held).to(predictor.device)[None], positions)
        found = reconstruction_scores(predictor, made, batch, positions)
        add_figures(figures, found, float(len(bottleneck)))
        return {name: values[0, : len(bottleneck)].float() for name, values in made.items()}


class _Moments:
    """Mean and variance over TRs of what is decoded."""

    def __init__(self) -> None:
        self._count, self._total, self._squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, made: torch.Tensor) -> None:
        """Add TRs, (trs, ...)."""
        # Pictures vary little beside their mean: float32 would lose that in the difference.
        precise = made.double()
        self._count += len(made)
        self._total = self._total + precise.sum(0)
        self._squares = self._squares + precise.square().sum(0)

    def spread(self) -> float:
        """Return the sum of squared differences from the mean."""
        rest = self._squares - self._total.square() / max(self._count, 1)
        return max(float(rest.sum()), torch.finfo(torch.float32).tiny)


@torch.inference_mode()
def moved_scans(
    predictor: Predictor,
    windows: Sequence[Window],
    mean: NDArray[np.float32],
    sets: NDArray[np.bool_],
    members: Mapping[str, NDArray[np.bool_]],
) -> list[dict[str, float]]:
    """Return how much the predicted scans of each region move when units are silent.

    Parameters
    ----------
    predictor : Predictor
    windows : sequence of Window
    mean : ndarray, shape (Z,)
        At which silent units stay.
    sets : ndarray of bool, shape (sets, Z)
    members : mapping of str to ndarray of bool, shape (voxels,)
        The voxels of each region.

    Returns
    -------
    list of dict
        Of each set, by region: the mean squared change as a multiple of the variance over the
        windows' TRs.
    """
    length, device = predictor.config.train.window_trs, predictor.device
    inside = {name: torch.from_numpy(own).to(device) for name, own in members.items()}
    moments = {name: _Moments() for name in members}
    found = [dict.fromkeys(members, 0.0) for _ in sets]
    rest, silent = torch.from_numpy(mean).to(device), torch.from_numpy(sets).to(device)
    for window, block in zip(windows, blocks_of(windows, length), strict=True):
        batch = predictor.reader([window])
        whole = predictor.predict(batch).bottleneck.float()

        def scans(
            bottleneck: torch.Tensor, batch: Batch = batch, trs: int = block.trs
        ) -> torch.Tensor:
            made = predictor.scans(bottleneck, batch.inside, batch.bold.shape[1])
            return made[0, :trs].float()

        intact = scans(whole)
        for name, own in inside.items():
            moments[name].add(intact[..., own])
        for figures, units in zip(found, silent, strict=True):
            change = (scans(torch.where(units, rest, whole)) - intact).square()
            for name, own in inside.items():
                figures[name] += float(change[..., own].sum())
    return [{n: value / moments[n].spread() for n, value in one.items()} for one in found]


def table(
    lesion: Lesion, intact: Figures, own: Figures, random: Sequence[Figures]
) -> list[dict[str, Any]]:
    """Return what a lesion does to each modality, beside random ones.

    Parameters
    ----------
    lesion : Lesion
    intact, own : mapping
        Figures by modality, from `Effects`.
    random : sequence of mapping
        Of random lesions of the same size.

    Returns
    -------
    list of dict
        ``lesion``, ``size``, ``modality``, ``moved``, ``moved_random`` (their mean), ``moved_p``
        (share of the random ones, and this one, that move as much or more), and for each figure
        ``before``, ``after``, ``after_random``.
    """
    rows = []
    for name, figures in own.items():
        moved = [one[name]["moved"] for one in random]
        more = sum(value >= figures["moved"] for value in moved)
        rows.append({
            "lesion": lesion.name, "size": lesion.size, "modality": name,
            "moved": figures["moved"],
            "moved_random": float(np.mean(moved)) if moved else None,
            "moved_p": (1 + more) / (1 + len(moved)) if moved else None,
            "figures": {
                key: {
                    "before": intact[name][key], "after": value,
                    "after_random": _mean_of(random, name, key),
                }
                for key, value in figures.items() if key != "moved"
            },
        })  # fmt: skip
    return rows


def _mean_of(random: Sequence[Mapping[str, Mapping[str, float]]], name: str, key: str) -> Any:
    return float(np.mean([one[name][key] for one in random])) if random else None
