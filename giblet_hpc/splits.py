"""Training, validation and test TRs: whole runs or contiguous blocks with a purge gap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from giblet_hpc.config.split import Split
from giblet_hpc.config.study import Study
from giblet_hpc.errors import ConfigError
from giblet_hpc.files import read_json, write_json

MINIMUM_TRS = 8


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


def make_folds(split: Split, study: Study, lengths: Mapping[str, int]) -> tuple[Fold, ...]:
    """Divide the TRs as the config says.

    Parameters
    ----------
    split : Split
        Scheme, shares, purge gap (TRs).
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
    if split.scheme == "blocks":
        folds = [_blocks_fold(split, whole)]
    elif split.scheme == "runs":
        folds = [_runs_fold(split, whole, test=split.test_runs, name="")]
    else:
        folds = [
            _runs_fold(split, whole, test=(block.run,), name=f"test-{block.run}") for block in whole
        ]
    for fold in folds:
        for subset in ("train", "validation", "test"):
            blocks: tuple[Block, ...] = getattr(fold, subset)
            if subset == "validation" and split.validation_fraction == 0:
                continue
            if not blocks or min(block.trs for block in blocks) < MINIMUM_TRS:
                raise ConfigError(
                    f"the split leaves fewer than {MINIMUM_TRS} TRs for {subset}: {blocks}",
                    hint="lower split.purge_trs or change the shares",
                )
    return tuple(folds)


def _runs_fold(split: Split, whole: Iterable[Block], *, test: tuple[str, ...], name: str) -> Fold:
    tests = tuple(block for block in whole if block.run in test)
    rest = [block for block in whole if block.run not in test]
    train, validation = _cut_ends(rest, split.validation_fraction, split.purge_trs)
    return Fold(name, train, validation, tests)


def _blocks_fold(split: Split, whole: list[Block]) -> Fold:
    rest, tests = _cut_ends(whole, split.test_fraction, split.purge_trs)
    train, validation = _cut_ends(rest, split.validation_fraction, split.purge_trs)
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
    return tuple(
        Fold(
            fold["name"],
            *(
                tuple(Block(*block) for block in fold[subset])
                for subset in ("train", "validation", "test")
            ),
        )
        for fold in read_json(file)["folds"]
    )
