"""Two ranks killed at any point of a save, in every mode: the last good checkpoint is whole.

python -m tests.training.test_killed_saves MODE KILLS FOLDER
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
import torch.distributed as dist

from giblet_hpc.runs import checkpoints
from giblet_hpc.training import checkpoint, fully_sharded, tensor_parallel
from giblet_hpc.training.world import World
from tests.training.test_tensor_parallel import MODES, Training

KILLS, STEPS, RANKS = 6, 10_000, 2
ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ddp", "fsdp", "tensor"])
def test_the_last_good_checkpoint_is_used(tmp_path: Path, mode: str) -> None:
    # In a process of its own: ranks are forked, which torch's autograd does not survive.
    command = [sys.executable, "-m", __name__, mode, str(KILLS), str(tmp_path)]
    path = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def campaign(mode: str, kills: int, tmp_path: Path) -> str:
    """Kill ranks so many times; return how often a save was complete before."""
    random = np.random.default_rng(0)
    folder, reached, saves = tmp_path / "checkpoints", 0, 0
    for number in range(kills):
        meeting = tmp_path / f"ranks-{number}"
        ranks = [start(rank, mode, meeting, folder) for rank in range(RANKS)]
        begun = time.monotonic()
        while not list(tmp_path.glob(f"saving-{number}-*")) and time.monotonic() < begun + 60:
            time.sleep(0.01)
        time.sleep(float(random.uniform(0.0, 0.3)))
        for rank in random.permutation(RANKS):
            os.kill(ranks[rank], signal.SIGKILL)
            time.sleep(float(random.uniform(0.0, 0.02)))
        for rank in ranks:
            os.waitpid(rank, 0)
        newest = checkpoints.newest(folder)
        if newest is None:
            continue
        step = checkpoints.step_of(newest)
        assert step >= reached
        saves, reached = saves + (step > reached), step
        state = checkpoint.tensors_of(newest)
        assert all((v == step).all() for n, v in state.items() if n.endswith(("weight", "bias")))
        assert sum(name.startswith("optimizer/") for name in state) > 10
    assert saves, "no save was complete between two kills"
    return f"{mode}: {kills} kills, {saves} times later checkpoints than before, {reached} steps"


def start(rank: int, mode: str, meeting: Path, folder: Path) -> int:
    """Return the process of a rank that saves without end."""
    child = os.fork()
    if child == 0:
        save_without_end(rank, mode, meeting, folder)
    return child


def save_without_end(rank: int, mode: str, meeting: Path, folder: Path) -> NoReturn:
    try:
        torch.set_num_threads(1)
        fully_sharded.LARGE = tensor_parallel.LARGE = 20_000
        dist.init_process_group(
            "gloo", rank=rank, world_size=RANKS, store=dist.FileStore(str(meeting), RANKS),
            timeout=timedelta(seconds=30),
        )  # fmt: skip
        world = World(rank, rank, RANKS, torch.device("cpu"), RANKS)
        training = Training(MODES[mode](world))
        training.step()
        newest = checkpoints.newest(folder)
        first = 1 if newest is None else checkpoints.step_of(newest) + 1
        world.wait()
        writer = checkpoint.Writer(folder, world, keep_last=2)
        for step in range(first, STEPS):
            with torch.no_grad():
                for parameter in training.model.parameters():
                    parameter.fill_(step)
            pieces = training.strategy.pieces(training.model, training.optimizer)
            writer.save(pieces, {"step": step}, best=step % 3 == 0)
            (folder.parent / f"saving-{meeting.name.partition('-')[2]}-{rank}").touch()
    finally:
        os._exit(1)


if __name__ == "__main__":
    sys.stdout.write(campaign(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])) + "\n")
