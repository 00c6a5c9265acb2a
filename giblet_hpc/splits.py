"""Training, validation and test TRs: whole runs or contiguous blocks with a purge gap."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from giblet_hpc.config.split import Split
from giblet_hpc.config.study import ScanRun, Study
from giblet_hpc.errors import ConfigError
from giblet_hpc.files import read_json, write_json

logger = logging.getLogger(__name__)
MINIMUM_TRS = 8
SAME_TR = 0.1
"""Of a TR by which two runs' moments in the film may differ and still be the same."""


class Block(NamedTuple):
    """Consecutive TRs of one run."""

    run: str
    """Name of the run."""
    start: int
    """First TR, counted from 0."""
    stop: int
    """End, excluded."""

    @property
    def trs(self) -> int:
        """How many TRs."""
        return self.stop - self.start


class Fold(NamedTuple):
    """One way to divide the TRs."""

    name: str
    """Empty when it is the only one, else `test-<run>`."""
    train: tuple[Block, ...]
    """TRs to fit on."""
    validation: tuple[Block, ...]
    """TRs that choose the best epoch."""
    test: tuple[Block, ...]
    """TRs that score, and serve nothing else."""
    within: str | None = None
    """The fold whose training TRs this one divides: what it predicts is out of fold there."""


def make_folds(split: Split, study: Study, lengths: Mapping[str, int]) -> tuple[Fold, ...]:
    """Divide the TRs as the config says.

    What two runs both show is on one side only: TRs of a run that show what another run's test TRs
    show are not trained on, nor those around them, nor do they choose the best epoch; likewise
    training TRs that show what validation TRs of another run show.

    Parameters
    ----------
    split : Split
        Scheme, shares, purge gap.
    study : Study
        The runs and how many of their leading TRs stay out.
    lengths : mapping of str to int
        TRs of each run.

    Returns
    -------
    tuple of Fold

    Raises
    ------
    ConfigError
        When a part comes out shorter than eight TRs.
    """
    whole = [Block(run.name, run.skip_trs, lengths[run.name]) for run in study.runs]
    purge = split.purge_trs(study.tr)
    if split.scheme == "blocks":
        folds = [_blocks_fold(split, whole, purge)]
    elif split.scheme == "runs":
        folds = [_runs_fold(split, whole, purge, test=split.test_runs, name="")]
    else:
        folds = [
            _runs_fold(split, whole, purge, test=(block.run,), name=f"test-{block.run}")
            for block in whole
        ]
    folds = [_shown_once(fold, study, purge) for fold in folds]
    for fold in folds:
        for subset in ("train", "validation", "test"):
            blocks: tuple[Block, ...] = getattr(fold, subset)
            if subset == "validation" and split.validation_fraction == 0:
                continue
            if not blocks or min(block.trs for block in blocks) < MINIMUM_TRS:
                raise ConfigError(
                    f"the split leaves fewer than {MINIMUM_TRS} TRs for {subset}: {blocks}",
                    hint="lower split.purge_seconds or change the shares",
                )
    inner = [one for fold in folds for one in _inner_folds(fold, split, study)]
    return (*folds, *inner)


def outer_folds(folds: Iterable[Fold]) -> list[Fold]:
    """Return the folds whose test TRs score."""
    return [fold for fold in folds if fold.within is None]


def _inner_folds(fold: Fold, split: Split, study: Study) -> list[Fold]:
    """Divide a fold's training TRs into blocks, each of which others' models predict.

    Raises
    ------
    ConfigError
        When a block, or what is left beside it, comes out shorter than eight TRs.
    """
    count, purge = split.inner_blocks, split.purge_trs(study.tr)
    total = sum(block.trs for block in fold.train)
    edges = [round(total * number / count) for number in range(count + 1)] if count else []
    found = []
    for number, (start, stop) in enumerate(itertools.pairwise(edges)):
        tests, train, before = [], [], 0
        for block in fold.train:
            first = block.start + min(max(start - before, 0), block.trs)
            last = block.start + min(max(stop - before, 0), block.trs)
            before += block.trs
            if first < last:
                tests.append(Block(block.run, first, last))
                train += _without(block, first, last, purge)
            else:
                train.append(block)
        whole = [block for block in train if block.trs >= MINIMUM_TRS]
        kept = _cut_shown(whole, tests, study, purge)
        if not kept or sum(block.trs for block in tests) < MINIMUM_TRS:
            raise ConfigError(
                f"split.inner_blocks {count} leaves fewer than {MINIMUM_TRS} TRs",
                hint="fewer of them, or a smaller split.purge_seconds",
            )
        # No run's name has a plus sign: `test-a-inner-1` may be a fold that tests a run.
        name = "+".join(filter(None, [fold.name, f"inner-{number + 1}"]))
        found.append(Fold(name, kept, fold.validation, tuple(tests), fold.name))
    return found


def _shown_once(fold: Fold, study: Study, purge: int) -> Fold:
    """Cut out of each subset what other runs show in a subset that comes after it."""
    validation = _cut_shown(fold.validation, fold.test, study, purge)
    train = _cut_shown(fold.train, (*fold.test, *validation), study, purge)
    for name, before, after in (
        ("training", fold.train, train), ("validation", fold.validation, validation),
    ):  # fmt: skip
        lost = sum(block.trs for block in before) - sum(block.trs for block in after)
        if lost:
            logger.info(
                "%s: %d TRs (%.1f min) are left out of %s: other runs show the same, on the other "
                "side of the split", fold.name or "split", lost, lost * study.tr / 60, name,
            )  # fmt: skip
    return Fold(fold.name, train, validation, fold.test)


def _cut_shown(
    blocks: Iterable[Block], held_out: Iterable[Block], study: Study, purge: int
) -> tuple[Block, ...]:
    """Cut out of blocks the TRs that show what held-out blocks of other runs show.

    With ``purge`` TRs around them; a rest that is too short for anything goes too.
    """
    runs = {run.name: run for run in study.runs}
    kept: list[Block] = []
    for block in blocks:
        pieces = [block]
        for other in held_out:
            shift = _shown_later(runs[block.run], runs[other.run], study)
            if block.run == other.run or shift is None:
                continue
            # Where the other block's TRs are in this run, to the whole TR that they touch.
            start, stop = math.floor(other.start + shift), math.ceil(other.stop + shift)
            pieces = [rest for piece in pieces for rest in _without(piece, start, stop, purge)]
        kept += [p for p in pieces if p == block or p.trs >= MINIMUM_TRS]
    return tuple(kept)


def _without(block: Block, start: int, stop: int, purge: int) -> list[Block]:
    """Return what is left of a block without some TRs and those around them."""
    if stop <= block.start or start >= block.stop:
        return [block]
    rest = [
        Block(block.run, block.start, max(block.start, start - purge)),
        Block(block.run, min(block.stop, stop + purge), block.stop),
    ]
    return [part for part in rest if part.trs > 0]


def _shown_later(run: ScanRun, other: ScanRun, study: Study) -> float | None:
    """Return how many TRs later a run shows what another shows; None where they share nothing."""
    if run.film is not None and other.film is not None:
        same = (study.root / run.film).resolve() == (study.root / other.film).resolve()
        return (other.film_start - run.film_start) / study.tr if same else None
    if run.film is not None or other.film is not None:
        return None
    if run.annotations is not None and other.annotations is not None:
        same = (study.root / run.annotations).resolve() == (
            study.root / other.annotations
        ).resolve()
        return 0.0 if same else None
    # Features of a lab's own: a task is what was shown.
    return 0.0 if run.task is not None and run.task == other.task else None


def repeats_of(blocks: Sequence[Block], study: Study) -> list[list[Block]]:
    """Return blocks of different runs that show the same, cut to what all of a group share.

    Runs whose TRs begin at other moments of the film do not count as the same.
    """
    runs = {run.name: run for run in study.runs}
    groups: list[list[Block]] = []
    for block in blocks:
        for group in groups:
            first = group[0]
            shift = _shown_later(runs[block.run], runs[first.run], study)
            if shift is None or abs(shift - round(shift)) > SAME_TR or block.run == first.run:
                continue
            # The first block's TR k is this one's TR k + shift.
            start, stop = block.start - round(shift), block.stop - round(shift)
            start, stop = max(first.start, start), min(first.stop, stop)
            if stop - start < MINIMUM_TRS:
                continue
            cut, end = start - first.start, stop - first.start
            group[:] = [Block(b.run, b.start + cut, b.start + end) for b in group]
            group.append(Block(block.run, start + round(shift), stop + round(shift)))
            break
        else:
            groups.append([block])
    return [group for group in groups if len(group) > 1]


def _runs_fold(
    split: Split, whole: Iterable[Block], purge: int, *, test: tuple[str, ...], name: str
) -> Fold:
    tests = tuple(block for block in whole if block.run in test)
    rest = [block for block in whole if block.run not in test]
    train, validation = _cut_ends(rest, split.validation_fraction, purge)
    return Fold(name, train, validation, tests)


def _blocks_fold(split: Split, whole: list[Block], purge: int) -> Fold:
    rest, tests = _cut_ends(whole, split.test_fraction, purge)
    train, validation = _cut_ends(rest, split.validation_fraction, purge)
    return Fold("", train, validation, tests)


def _cut_ends(
    blocks: Iterable[Block], fraction: float, purge: int
) -> tuple[tuple[Block, ...], tuple[Block, ...]]:
    """Cut the last ``fraction`` off each block, leaving ``purge`` TRs between."""
    kept, ends = [], []
    for block in blocks:
        if fraction == 0:
            kept.append(block)
            continue
        cut = block.stop - round(block.trs * fraction)
        kept.append(Block(block.run, block.start, cut - purge))
        ends.append(Block(block.run, cut, block.stop))
    return tuple(kept), tuple(ends)


def save_folds(folds: Iterable[Fold], file: Path, *, purge_trs: int) -> None:
    """Write the division into a file."""
    write_json(file, {"purge_trs": purge_trs, "folds": [fold._asdict() for fold in folds]})


def load_folds(file: Path) -> tuple[Fold, ...]:
    """Read the division from a file."""

    def blocks(rows: Iterable[Iterable[Any]]) -> tuple[Block, ...]:
        return tuple(Block(*row) for row in rows)

    return tuple(
        Fold(
            fold["name"], blocks(fold["train"]), blocks(fold["validation"]), blocks(fold["test"]),
            fold["within"],
        )
        for fold in read_json(file)["folds"]
    )  # fmt: skip
