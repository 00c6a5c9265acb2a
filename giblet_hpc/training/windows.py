"""Windows of a study's blocks, in an order by seed and epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from giblet_hpc.splits import Block


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
