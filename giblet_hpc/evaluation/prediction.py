"""Running a trained fold over its test TRs, on all ranks, results in the order of time."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from giblet_hpc.evaluation.blocks import is_made, write_rows
from giblet_hpc.files import write_json
from giblet_hpc.models.shapes import Batch, Positions
from giblet_hpc.runs import checkpoints
from giblet_hpc.splits import Block
from giblet_hpc.training import checkpoint
from giblet_hpc.training.members import Member
from giblet_hpc.training.predictor import Predictor
from giblet_hpc.training.windows import Window, covering_windows
from giblet_hpc.training.world import World

Figures = dict[str, dict[str, float]]


def load_best(predictor: Predictor, folder: Path, *, data: str) -> dict[str, Any]:
    """Put the best checkpoint's weights into the predictor's model; return its manifest.

    Raises
    ------
    DataError
        When there is none, it is damaged, or comes from data of another digest.
    """
    source, manifest = checkpoint.load(checkpoints.valid_best(folder))
    checkpoint.require_data(manifest, data)
    predictor.load(source)
    return manifest


@torch.inference_mode()
def predict_test(predictor: Predictor, blocks: Sequence[Block], folder: Path, world: World) -> None:
    """Predict the scans of all test TRs and score the reconstructions.

    Each rank predicts every ``world_size``-th window; rank 0 then puts the rows in the order of
    the test blocks' TRs.

    Parameters
    ----------
    predictor : Predictor
        With the weights to evaluate.
    blocks : sequence of Block
        The test TRs.
    folder : Path
        Receives ``predictions.npy`` (subjects, trs, voxels; one subject where the model does not
        tell them apart) and ``reconstruction.json`` (mean figures of each modality).
    world : World
    """
    length = predictor.config.train.window_trs
    windows = covering_windows(blocks, length)
    mine = windows[world.rank :: world.size]
    sums: dict[str, dict[str, float]] = {
        name: defaultdict(float) for name in predictor.reconstructed
    }
    own = _Rows(predictor, mine, sums)
    write_rows(
        folder / f"rank-{world.rank}.npy", (len(mine), own.subjects(), length, own.voxels), own
    )
    everyone = world.gather({"sums": sums, "trs": own.trs})
    if world.is_main:
        write_json(folder / "reconstruction.json", mean_figures(everyone))
        _assemble(folder, windows, blocks, world.size)
    world.wait()


class _Rows:
    """A rank's predictions, window by window; figures of reconstructions are summed on the way.

    Parameters
    ----------
    predictor : Predictor
    windows : sequence of Window
    sums : dict
        Receives each modality's figures times the TRs that they are of.
    """

    def __init__(
        self, predictor: Predictor, windows: Sequence[Window], sums: dict[str, dict[str, float]]
    ) -> None:
        self._predictor, self._windows, self._sums = predictor, windows, sums
        self.voxels, self.trs = predictor.shapes.voxels, 0.0

    def subjects(self) -> int:
        """Return for how many subjects the model predicts: 1 where it does not tell them apart."""
        if not self._windows:
            return 1
        batch = self._predictor.reader(self._windows[:1])
        return self._predictor.predict(batch).bold.shape[2]

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield (S, L, V) of each window."""
        for window in self._windows:
            batch = self._predictor.reader([window])
            output = self._predictor.predict(batch)
            yield output.bold[0].float().transpose(0, 1).cpu().numpy()
            count = float(batch.inside[:, -batch.bold.shape[1] :].sum())
            where = self._predictor.positions(None)
            found = reconstruction_scores(self._predictor, output.reconstruction, batch, where)
            add_figures(self._sums, found, count)
            self.trs += count


def add_figures(sums: Figures, found: Figures, count: float) -> None:
    """Add the figures of ``count`` TRs."""
    for name, scores in found.items():
        for key, value in scores.items():
            sums[name][key] = sums[name].get(key, 0.0) + value * count


@torch.inference_mode()
def score_bottleneck(
    predictor: Predictor,
    blocks: Sequence[Block],
    bottleneck: NDArray[np.floating],
    world: World,
) -> Figures:
    """Return the mean figures of what the decoders make of a bottleneck; ranks share the TRs.

    Parameters
    ----------
    predictor : Predictor
    blocks : sequence of Block
    bottleneck : ndarray, shape (trs of the blocks, Z)
    world : World
    """
    length, first = predictor.config.train.window_trs, first_rows(blocks)
    sums: Figures = {name: defaultdict(float) for name in predictor.reconstructed}
    positions, trs = predictor.positions(None), 0.0
    for window in covering_windows(blocks, length)[world.rank :: world.size]:
        batch = predictor.reader([window])
        row = first[window.block] + window.start - window.block.start
        held = np.zeros((batch.bold.shape[1], bottleneck.shape[1]), np.float32)
        count = min(length, window.block.stop - window.start)
        held[:count] = bottleneck[row : row + count]
        placed = torch.from_numpy(held).to(predictor.device)[None]
        made = predictor.reconstruct(placed, positions)
        add_figures(sums, reconstruction_scores(predictor, made, batch, positions), float(count))
        trs += count
    return mean_figures(world.gather({"sums": sums, "trs": trs}))


def first_rows(blocks: Sequence[Block]) -> dict[Block, int]:
    """Return the row of each block's first TR among the TRs of all."""
    starts = np.cumsum([0, *(block.trs for block in blocks)])
    return {block: int(start) for block, start in zip(blocks, starts, strict=False)}


def reconstruction_scores(
    predictor: Predictor,
    made: Mapping[str, torch.Tensor],
    batch: Batch,
    positions: Positions,
) -> Figures:
    """Return each modality's figures over the TRs of a batch.

    Parameters
    ----------
    predictor : Predictor
    made : mapping of str to Tensor
        Each modality's reconstruction, (B, L, ...).
    batch : Batch
    positions : mapping of str to Tensor
        Where in a TR there are reconstructions.
    """
    target = batch.bold.shape[1]
    figures = {}
    for name, modality in predictor.reconstructed.items():
        scores = modality.scores(
            made[name],
            batch.stimulus[name][:, -target:],
            batch.inside[:, -target:],
            positions=positions.get(name),
        )
        figures[name] = {key: float(value) for key, value in scores.items()}
    return figures


def mean_figures(everyone: Sequence[Mapping[str, Any]]) -> Figures:
    """Add up the ranks' sums and divide by their TRs."""
    trs = max(sum(rank["trs"] for rank in everyone), 1)
    figures: Figures = defaultdict(dict)
    for rank in everyone:
        for name, sums in rank["sums"].items():
            for key, value in sums.items():
                figures[name][key] = figures[name].get(key, 0.0) + value / trs
    return {name: scores for name, scores in figures.items() if scores}


def read_figures(folder: Path) -> Figures:
    """Return the mean figures of each modality's reconstruction."""
    figures: Figures = json.loads((folder / "reconstruction.json").read_text())
    return figures


def seed_folder(folder: Path, number: int) -> Path:
    """Return where one of several networks' predictions are kept, counted from 0."""
    return folder / f"seed-{number + 1}"


def predict_by(
    networks: Sequence[Member],
    blocks: Sequence[Block],
    folder: Path,
    *,
    load: Callable[[Member], Predictor],
    world: World,
) -> None:
    """Write what networks that differ in their seed predict of some TRs, in their mean.

    Parameters
    ----------
    networks : sequence of Member
    blocks : sequence of Block
    folder : Path
    load : callable
        Returns a network with its weights.
    world : World
    """
    if is_made(folder / "predictions.npy", world):
        return
    places = [seed_folder(folder, number) for number in range(len(networks))]
    for member, place in zip(networks, places if len(networks) > 1 else [folder], strict=True):
        place.mkdir(parents=True, exist_ok=True)
        if not is_made(place / "predictions.npy", world):
            predict_test(load(member), blocks, place, world)
    if len(networks) > 1 and world.is_main:
        average(folder, places)
    world.wait()


def average(folder: Path, places: Sequence[Path]) -> None:
    """Write the mean of several networks' predictions; figures of reconstructions too."""
    several = [np.load(place / "predictions.npy", mmap_mode="r") for place in places]
    shape = several[0].shape
    rows = (
        np.asarray(np.mean([made[subject, tr] for made in several], axis=0, dtype=np.float64))
        for subject, tr in np.ndindex(shape[:2])
    )
    found = [read_figures(place) for place in places]
    means = {
        name: {key: float(np.mean([one[name][key] for one in found])) for key in scores}
        for name, scores in found[0].items()
    }
    write_json(folder / "reconstruction.json", means)
    write_rows(folder / "predictions.npy", shape, rows)


def _assemble(
    folder: Path, windows: Sequence[Window], blocks: Sequence[Block], world_size: int
) -> None:
    """Join the ranks' windows to one array in the order of the blocks' TRs."""
    files = [folder / f"rank-{rank}.npy" for rank in range(world_size)]
    ranks = [np.load(file, mmap_mode="r") for file in files]
    subjects, voxels = next((r.shape[1], r.shape[3]) for r in ranks if len(r))

    def ordered() -> Iterator[NDArray[np.float32]]:
        for subject in range(subjects):
            for number, window in enumerate(windows):
                predicted = ranks[number % world_size][number // world_size]
                yield predicted[subject, : window.block.stop - window.start]

    shape = (subjects, sum(block.trs for block in blocks), voxels)
    write_rows(folder / "predictions.npy", shape, ordered())
    for file in files:
        file.unlink()
