"""How long a checkpoint keeps training waiting, beside torch.save of the same state.

    python benchmarks/checkpoints.py [--gigabytes 1.5] [--folder /tmp] [--ranks 1]

torch.save is followed by fsync and sha256, as a checkpoint has to be. Reading is beside torch.load.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from giblet_hpc.files import sha256_file
from giblet_hpc.runs import checkpoints
from giblet_hpc.training import checkpoint
from giblet_hpc.training.pieces import spread, whole
from giblet_hpc.training.world import World

TENSORS = 24


def timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def with_torch(folder: Path, state: dict[str, torch.Tensor]) -> None:
    path = folder / "state.pt"
    with path.open("wb") as handle:
        torch.save(state, handle)
        handle.flush()
        os.fsync(handle.fileno())
    sha256_file(path)


def work(rank: int, given: argparse.Namespace, folder: Path) -> None:
    if given.ranks > 1:
        store = dist.FileStore(f"{folder}/ranks", given.ranks)
        dist.init_process_group("gloo", rank=rank, world_size=given.ranks, store=store)
    world = World(rank, rank, given.ranks, torch.device("cpu"), given.ranks)
    each = int(given.gigabytes * 1e9 / 4 / TENSORS)
    state = {f"model/{n}": torch.rand(each) for n in range(TENSORS)}
    names = list(state)
    mine = [n for n, r in spread(names, [each] * TENSORS, given.ranks).items() if r == rank]
    writer = checkpoint.Writer(folder / "ours", world, keep_last=1)
    rows = []
    for repeat in range(given.repeats):
        world.wait()
        ours = timed(lambda: writer.save(
            whole({n: state[n] for n in mine}), {"step": repeat}, best=False  # noqa: B023
        ))  # fmt: skip
        rest = timed(writer.wait)
        theirs = timed(lambda: with_torch(folder, state)) if world.is_main else 0.0
        world.wait()
        rows.append((ours, ours + rest, theirs))
    if world.is_main:
        newest = checkpoints.newest(folder / "ours")
        assert newest is not None
        blocked, total, theirs = (
            sorted(column)[len(column) // 2] for column in zip(*rows, strict=True)
        )
        loads = {
            "read_seconds": timed(
                lambda: [t.clone() for t in checkpoint.tensors_of(newest).values()]
            ),
            "verify_seconds": timed(lambda: checkpoints.is_valid(newest)),
            "torch_load_seconds": timed(lambda: torch.load(folder / "state.pt", weights_only=True)),
        }
        found = {"blocked_seconds": blocked, "whole_seconds": total, "torch_save_seconds": theirs,
                 "blocked_of_torch_save": blocked / theirs, **loads}  # fmt: skip
        given.folder = str(given.folder)
        sys.stdout.write(json.dumps({**vars(given), **found}, indent=1) + "\n")
    if given.ranks > 1:
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.5)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        if given.ranks == 1:
            work(0, given, Path(name))
        else:
            mp.spawn(work, args=(given, Path(name)), nprocs=given.ranks)


if __name__ == "__main__":
    main()
