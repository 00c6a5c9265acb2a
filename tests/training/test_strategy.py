"""What the data-parallel mode promises the loop, and memory that ranks of a node share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from giblet_hpc.training.node_memory import NodeMemory, PrivateMemory
from giblet_hpc.training.pieces import Source, merged, write_pieces
from giblet_hpc.training.strategy import DataParallel
from giblet_hpc.training.world import World


def world(rank: int = 0, size: int = 1) -> World:
    return World(rank, rank, size, torch.device("cpu"), size)


def trained(strategy: DataParallel) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = strategy.prepare(nn.Linear(3, 2), lambda layer: None)
    optimizer = torch.optim.AdamW(model.parameters())
    strategy.wrap(model)(torch.ones(4, 3)).square().sum().backward()
    optimizer.step()
    return model, optimizer


def test_a_state_goes_out_and_in_again(tmp_path: Path) -> None:
    strategy = DataParallel(world())
    model, optimizer = trained(strategy)
    pieces = strategy.pieces(model, optimizer)
    write_pieces(tmp_path / "all", pieces)
    source = Source(tmp_path, merged({piece.name: piece.place("all")} for piece in pieces))
    other, its_optimizer = trained(strategy)
    with torch.no_grad():
        other.weight.zero_()
        for moments in its_optimizer.state.values():
            moments["exp_avg"].zero_()
    strategy.load(source, other, its_optimizer)
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(
        its_optimizer.state_dict()["state"], optimizer.state_dict()["state"], rtol=0, atol=0
    )


def test_each_tensor_is_written_by_one_rank() -> None:
    model, optimizer = trained(DataParallel(world()))
    shares = [
        [piece.name for piece in DataParallel(world(rank, 3)).pieces(model, optimizer)]
        for rank in range(3)
    ]
    every = [name for share in shares for name in share]
    assert len(every) == len(set(every)) == 2 + 2 * 3
    assert all(shares)


def test_gradients_are_clipped_to_a_norm() -> None:
    strategy = DataParallel(world())
    model, _ = trained(strategy)
    before = torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item()
    assert strategy.clip(model, 0.5) == pytest.approx(before)
    after = torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item()
    assert after == pytest.approx(0.5, rel=1e-4)


def test_dropout_depends_on_seed_step_and_rank() -> None:
    def drawn(rank: int, seed: int, step: int) -> float:
        DataParallel(world(rank, 4)).seed_dropout(seed, step)
        return torch.rand(1).item()

    assert drawn(1, 7, 30) == drawn(1, 7, 30)
    others = {drawn(1, 7, 30), drawn(2, 7, 30), drawn(1, 8, 30), drawn(1, 7, 31)}
    assert len(others) == 4


@pytest.mark.parametrize("memory", [PrivateMemory(), NodeMemory(world())])
def test_arrays_are_filled_once(memory: PrivateMemory) -> None:
    fills = []

    def fill(values: np.ndarray) -> None:
        fills.append(values.shape)
        values[:] = 7

    array = memory.array("bold/01/run1", (3, 5), "float32", fill)
    assert fills == [(3, 5)]
    np.testing.assert_array_equal(array, np.full((3, 5), 7, np.float32))


def test_shared_memory_has_no_name_that_could_be_left_behind() -> None:
    def names() -> set[str]:
        return {
            str(path)
            for folder in ("/dev/shm", "/tmp")
            for path in Path(folder).glob("giblet-bold*")
        }

    array = NodeMemory(world()).array("bold/x", (1024,), "int16", lambda values: values.fill(3))
    assert array.sum() == 3 * 1024
    assert not names()
