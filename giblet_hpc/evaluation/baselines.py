"""The linear baseline: banded ridge on lagged features of the same store and split.

Beside it, by the same code: the baseline without each of its bands, and controls that a score has
to be read against.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.config.evaluate import Ridge
from giblet_hpc.config.run import RunConfig
from giblet_hpc.evaluation.blocks import (
    FEWEST_TRS,
    is_made,
    over_ranks,
    scans_of,
    valid_rows,
    voxel_blocks,
    voxel_share,
    write_rows,
)
from giblet_hpc.evaluation.choice import SUBJECTS, VOXELS, choose
from giblet_hpc.evaluation.metrics import product_measure, run_rows
from giblet_hpc.evaluation.penalised import (
    Fitted,
    Prior,
    Shared,
    fit_ridge,
    shared_settings,
    usable_blocks,
)
from giblet_hpc.evaluation.principal import principal_features
from giblet_hpc.evaluation.smooth_lags import with_prior
from giblet_hpc.files import read_json, write_json, write_with
from giblet_hpc.modalities.base import Modality
from giblet_hpc.splits import Block, Fold
from giblet_hpc.timing import delayed
from giblet_hpc.training.feed import StudyArrays
from giblet_hpc.training.statistics import rows_of
from giblet_hpc.training.world import World

logger = logging.getLogger(__name__)
RESPONSE_SECONDS = 16.0
BUMP_SECONDS = 15.0
"""Width of the functions of time of a control that knows nothing but when a run began."""
WITHOUT = "without-"
TIME = "time"


def delays_of(ridge: Ridge, tr: float) -> tuple[int, ...]:
    """Return the lags in TRs: the config's, else from 1 TR to 16 s."""
    return ridge.delays or tuple(range(1, math.ceil(RESPONSE_SECONDS / tr) + 1))


@dataclass(frozen=True)
class Design:
    """What a linear model is fitted to and predicts from.

    Parameters
    ----------
    train, test : mapping of str to ndarray, shape (trs, columns)
        By band.
    delays : tuple of int
        Of the columns; the prior acts over them.
    prior : Prior
    """

    train: Mapping[str, NDArray[np.float32]]
    test: Mapping[str, NDArray[np.float32]]
    delays: tuple[int, ...]
    prior: Prior

    def mixed(self, tr: float) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
        """Return the bands on which plain ridge has the prior, of training and test TRs."""
        length = self.prior.smooth_seconds / tr
        train, test = (
            [with_prior(band, self.delays, length) for band in bands.values()]
            for bands in (self.train, self.test)
        )
        return train, test


class Baselines:
    """A fold's linear models; ranks share the voxels.

    Parameters
    ----------
    config : RunConfig
    study : StudyArrays
    modalities : mapping of str to Modality
        Bound to the fold's estimates.
    fold : Fold
    world : World
    """

    def __init__(
        self,
        config: RunConfig,
        study: StudyArrays,
        modalities: Mapping[str, Modality],
        fold: Fold,
        *,
        world: World,
    ) -> None:
        self._config, self._study, self._fold, self._world = config, study, fold, world
        self._options, self._tr = config.evaluate.ridge, config.study.tr
        self._delays = delays_of(self._options, self._tr)
        self.used = (*fold.train, *fold.validation)
        """Blocks that models are fitted to."""
        self._features = principal_features(
            study, modalities, fold.train, components=self._options.components
        )
        self.prior = Prior()
        self._shared: dict[int, Shared | None] = {}
        self.bands = tuple(next(iter(self._features.values())))

    @property
    def purge(self) -> int:
        """TRs dropped on both sides of a cross-validation block: as far as lags reach."""
        return max(self._delays)

    @property
    def sampled(self) -> slice:
        """Voxels at even distances, the same on every rank, by which is chosen what all share."""
        return slice(0, None, max(1, self._study.voxels // VOXELS))

    def mixed(self) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
        """Return ridge's bands of training and of test TRs, on which plain ridge has its prior."""
        return self._design("ridge", self.prior).mixed(self._tr)

    def mixed_of(self, blocks: Sequence[Block]) -> list[NDArray[np.float32]]:
        """Return ridge's bands of any blocks, on which plain ridge has its prior."""
        lagged = self._lagged(blocks)
        return Design(lagged, {}, self._delays, self.prior).mixed(self._tr)[0]

    def names(self) -> list[str]:
        """Return the models there are beside ridge itself."""
        parts = [f"{WITHOUT}{band}" for band in self.bands] if len(self.bands) > 1 else []
        wanted = parts if self._options.partition else []
        return [*wanted, *((TIME,) if self._config.evaluate.controls else ())]

    def write(self, folder: Path) -> None:
        """Write ``NAME.npy`` of each model, (subjects, test trs, voxels), where it is not there.

        Fit on the fold's training and validation TRs. How smooth responses are over lags, what
        voxels share, and how bands are weighed is chosen by nested cross-validation over
        contiguous, purged blocks of those TRs, penalties by one inside it; principal components
        and LSA come from the training TRs alone. The choice is written beside the predictions, as
        ``ridge.json``; what each band adds to the explained variance as ``product.npz``.
        """
        self.prior = self._known_prior(folder / "ridge.json")
        for name in ("ridge", *self.names()):
            if not is_made(folder / f"{name}.npy", self._world):
                self._write(name, self._design(name, self.prior), folder)

    def write_apart(
        self, folder: Path, whole: Baselines, train: Sequence[Block], test: Sequence[Block]
    ) -> None:
        """Write ridge's predictions of some TRs, ``ridge.npy``, fitted on others alone.

        The prior and what voxels share, the penalty above all, is that of the whole fit, as the
        network's settings are: blocks are to say how good each is with its settings, not how these
        vary.
        """
        path = folder / "ridge.npy"
        if not is_made(path, self._world):
            design = Design(self._lagged(train), self._lagged(test), self._delays, whole.prior)
            self._save_own(path, _trs(test), self._apart(design, train, whole))
            self._join(path, _trs(test))

    def _apart(
        self, design: Design, train: Sequence[Block], whole: Baselines
    ) -> Iterator[NDArray[np.float32]]:
        """Yield each subject's predictions with what the voxels share in the whole fit."""
        mixed = design.mixed(self._tr)
        for subject in range(len(self._study.subjects)):
            shared = whole.shared(subject)
            yield self._model(design, mixed, train, subject=subject, shared=shared)[0]

    def shared(self, subject: int) -> Shared | None:
        """Return what a subject's voxels share in this fit; None where they share nothing."""
        if subject not in self._shared:
            found = None
            if self._scanned(subject, self.used, self.purge):
                sample, valid = scans_of(self._study, subject, self.used, self.sampled)
                found = shared_settings(
                    [band[valid] for band in self.mixed()[0]], sample[valid], self._options,
                    purge=self.purge, prior=self.prior,
                )  # fmt: skip
            self._shared[subject] = found
        return self._shared[subject]

    def _known_prior(self, file: Path) -> Prior:
        facts = {}
        if self._world.is_main and not file.is_file():
            facts = self._choose().facts()
            logger.info("ridge: %s", facts)
            write_json(file, facts)
        elif self._world.is_main:
            facts = read_json(file)
        return Prior(**self._world.broadcast(facts))

    def _choose(self) -> Prior:
        """Choose the prior by some voxels of some subjects."""
        everyone = range(len(self._study.subjects))
        some = [n for n in everyone if self._scanned(n, self.used, self.purge)]
        # Of those with the most scans: others may have too few for the choice.
        some = sorted(some, key=lambda n: -valid_rows(self._study, n, self.used).sum())[:SUBJECTS]
        pairs = [scans_of(self._study, subject, self.used, self.sampled) for subject in some]
        lagged = list(self._lagged(self.used).values())
        scans, valid = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        return choose(lagged, scans, valid, self._options, delays=self._delays, tr=self._tr)

    def _design(self, name: str, prior: Prior) -> Design:
        if name == TIME:
            bumps = [{name: self._bumps(blocks)} for blocks in (self.used, self._fold.test)]
            return Design(bumps[0], bumps[1], (0,), Prior())
        train, test = self._lagged(self.used), self._lagged(self._fold.test)
        left = name.removeprefix(WITHOUT)
        kept = [band for band in self.bands if band != left]
        return Design(
            {band: train[band] for band in kept}, {band: test[band] for band in kept},
            self._delays, prior,
        )  # fmt: skip

    def _lagged(self, blocks: Sequence[Block]) -> dict[str, NDArray[np.float32]]:
        """Return the lagged features of blocks, by band."""
        return {
            band: rows_of([
                delayed(self._features[b.run][band][b.start : b.stop], self._delays)
                for b in blocks
            ])
            for band in self.bands
        }  # fmt: skip

    def _bumps(self, blocks: Sequence[Block]) -> NDArray[np.float32]:
        """Return Gaussian functions of the time since each run began, (trs, functions)."""
        width = BUMP_SECONDS / self._tr
        last = max(run.valid.shape[1] for run in self._study.runs.values())
        centres = np.arange(0, last, width)
        times = np.concatenate([np.arange(b.start, b.stop) for b in blocks])
        apart = np.subtract.outer(times, centres) / width
        return np.exp(-0.5 * apart**2).astype(np.float32)

    def _write(self, name: str, design: Design, folder: Path) -> None:
        study, test = self._study, self._fold.test
        mine = voxel_share(study.voxels, self._world)
        product = name == "ridge" and len(design.train) > 1
        maps = {b: np.zeros((len(study.subjects), study.voxels)) for b in design.train if product}
        tests = design.mixed(self._tr)[1] if product else []

        def rows() -> Iterator[NDArray[np.float32]]:
            for subject, (predicted, model) in enumerate(self._models(design, self.used)):
                if product:
                    found = self._product(subject, predicted, model, tests)
                    for band, values in zip(design.train, found, strict=True):
                        maps[band][subject, mine] = values
                yield predicted

        self._save_own(folder / f"{name}.npy", _trs(test), rows())
        if product:
            whole = {band: over_ranks(values, self._world) for band, values in maps.items()}
            if self._world.is_main:
                write_with(
                    folder / "product.npz",
                    lambda handle: np.savez(handle, **whole),  # type: ignore[arg-type]
                )
        # At last: what is there under this name is not made again.
        self._join(folder / f"{name}.npy", _trs(test))

    def _product(
        self,
        subject: int,
        predicted: NDArray[np.float32],
        model: Fitted | None,
        tests: Sequence[NDArray[np.float32]],
    ) -> Iterator[NDArray[np.float64]]:
        """Yield what each band adds to R2, of a rank's voxels."""
        mine = voxel_share(self._study.voxels, self._world)
        measured, valid = scans_of(self._study, subject, self._fold.test, mine)
        for number in range(len(tests)):
            if model is None:
                yield np.full(measured.shape[1], np.nan)
                continue
            part, runs = model.part(tests, number), run_rows(self._fold.test)
            yield np.concatenate([
                product_measure(part[:, some], predicted[:, some], measured[:, some], valid, runs)
                for some in voxel_blocks(slice(0, measured.shape[1]))
            ])  # fmt: skip

    def _models(
        self, design: Design, used: Sequence[Block]
    ) -> Iterator[tuple[NDArray[np.float32], Fitted | None]]:
        """Yield each subject's predictions of a rank's voxels, (test trs, voxels), and its model.

        NaN, and none, of a subject without scans to fit a model to.
        """
        mixed = design.mixed(self._tr)
        for subject in range(len(self._study.subjects)):
            yield self._model(design, mixed, used, subject=subject)

    def _model(
        self,
        design: Design,
        mixed: tuple[Sequence[NDArray[np.float32]], Sequence[NDArray[np.float32]]],
        used: Sequence[Block],
        *,
        subject: int,
        shared: Shared | None = None,
    ) -> tuple[NDArray[np.float32], Fitted | None]:
        """Return a subject's predictions of a rank's voxels and its model; NaN without scans."""
        mine, purge = voxel_share(self._study.voxels, self._world), max(design.delays)
        train, test = mixed
        scans, valid = scans_of(self._study, subject, used, mine)
        if not scans.shape[1] or not self._scanned(subject, used, purge):
            return np.full((len(test[0]), scans.shape[1]), np.nan, np.float32), None
        sample, _ = scans_of(self._study, subject, used, self.sampled)
        model = fit_ridge(
            [band[valid] for band in train], scans[valid], self._options,
            purge=purge, prior=design.prior, sample=sample[valid], shared=shared,
        )  # fmt: skip
        return model.predict(test), model

    def _save_own(self, path: Path, trs: int, own: Iterable[NDArray[np.float32]]) -> None:
        """Write a rank's voxels of all subjects."""
        mine = voxel_share(self._study.voxels, self._world)
        shape = (len(self._study.subjects), trs, mine.stop - mine.start)
        write_rows(_of_rank(path, self._world.rank), shape, own)
        self._world.wait()

    def _join(self, path: Path, trs: int) -> None:
        """Write all ranks' voxels of all subjects as one file."""
        subjects, world = len(self._study.subjects), self._world
        if world.is_main:
            files = [_of_rank(path, rank) for rank in range(world.size)]
            ranks = [np.load(file, mmap_mode="r") for file in files]
            rows = (
                np.concatenate([part[subject, tr] for part in ranks])
                for subject in range(subjects)
                for tr in range(trs)
            )
            write_rows(path, (subjects, trs, self._study.voxels), rows)
            # Also those that an attempt with more ranks has left.
            for file in path.parent.glob(f".{path.stem}-rank-*.npy"):
                file.unlink()
        world.wait()

    def _scanned(self, subject: int, blocks: Sequence[Block], purge: int) -> bool:
        """Whether a subject has scans enough to fit a model to."""
        trs = int(valid_rows(self._study, subject, blocks).sum())
        return trs >= FEWEST_TRS and bool(usable_blocks(trs, self._options.folds, purge))


def _of_rank(path: Path, rank: int) -> Path:
    return path.with_name(f".{path.stem}-rank-{rank}.npy")


def _trs(blocks: Sequence[Block]) -> int:
    return sum(block.trs for block in blocks)
