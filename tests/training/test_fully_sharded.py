"""Sharded training is that of `ddp`, and each goes on from the other's checkpoints: gloo ranks."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.tensor import DTensor

from giblet_hpc.config import io
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.runs import checkpoints
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.training import checkpoint, fully_sharded, keyed_store, statistics
from giblet_hpc.training.loop import Trainer
from giblet_hpc.training.parallel import strategy_of
from giblet_hpc.training.strategy import DataParallel
from giblet_hpc.training.world import World
from tests.conftest import TINY
from tests.training.test_loop import FOLD, study

RANKS = 2
STOPPED_AT = 7
CONFIG = Path(__file__).parents[2] / "configs" / "demo.yaml"


def train(folder: Path, world: World, *more: str, stop_at: int = 0) -> Trainer:
    settings = [*TINY, "features.audio=null", "features.text=null", "train.batch_windows=4",
                "train.epochs=8", "train.log_every=1", *more]  # fmt: skip
    config, paths = io.load(CONFIG, settings), RunPaths(folder)
    if world.is_main and not paths.config.is_file():
        paths.create(config)
        for name in (paths.inputs, paths.split):
            name.write_text("{}")
    world.wait()
    alone = World(0, 0, 1, torch.device("cpu"))
    found = statistics.fit(modalities_of(config.features), study(), FOLD.train, alone)
    steps = iter(range(1, 1000))
    trainer = Trainer(
        config, paths, FOLD, study=study(), statistics=found, strategy=strategy_of(config, world),
        should_stop=lambda: next(steps) == stop_at,
    )  # fmt: skip
    trainer.run()
    return trainer


def work(rank: int, folder: Path) -> None:
    """As one of two ranks, train in both modes, undisturbed, stopped and in turns."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    fully_sharded.LARGE = 100
    # As ranks of two nodes, which meet at rank 0.
    wait = timedelta(seconds=120)
    if rank == 0:
        store = keyed_store.open_store(folder / "ranks.json", RANKS - 1, timeout=wait)
    else:
        store = keyed_store.join_store(
            folder / "ranks.json", rank, patience=wait, timeout=wait, gone=lambda: False
        )
    dist.init_process_group("gloo", rank=rank, world_size=RANKS, store=store)
    world = World(rank, rank, RANKS, torch.device("cpu"), RANKS)
    ddp, fsdp = "model.parallel=ddp", "model.parallel=fsdp"
    for name, first, then, more in (
        ("ddp", ddp, "", ()), ("fsdp", fsdp, "", ()), ("fsdp stopped", fsdp, fsdp, ()),
        ("ddp then fsdp", ddp, fsdp, ()), ("fsdp then ddp", fsdp, ddp, ()),
        ("parts ddp", ddp, "", ("train.accumulation=2",)),
        ("parts fsdp", fsdp, "", ("train.accumulation=2",)),
    ):  # fmt: skip
        trainer = train(folder / name, world, first, *more, stop_at=STOPPED_AT if then else 0)
        if then:
            assert trainer.step == STOPPED_AT
            trainer = train(folder / name, world, then, *more)
        assert trainer.finished
        if name == "fsdp":
            note_shares(trainer, folder / f"shares-{rank}.json")
    dist.destroy_process_group()
    store.close()


def note_shares(trainer: Trainer, file: Path) -> None:
    """Write down how many numbers this rank holds, of how many, with the optimizer's."""
    held = whole = 0
    for parameter in trainer.model.parameters():
        assert isinstance(parameter, DTensor)
        moments = [v for v in trainer.optimizer.state[parameter].values() if v.shape]
        for value in (parameter, *moments):
            assert isinstance(value, DTensor)
            held, whole = held + value.to_local().numel(), whole + value.numel()
    file.write_text(json.dumps([held, whole]))


def last(folder: Path) -> dict[str, Any]:
    found = checkpoints.newest(RunPaths(folder).checkpoints())
    assert found is not None
    return checkpoint.tensors_of(found)


def metrics(folder: Path) -> list[dict[str, float]]:
    lines = RunPaths(folder).metrics("").read_text().splitlines()
    timed = re.compile("time|second|rate")
    return [
        {name: value for name, value in json.loads(line).items()
         if isinstance(value, float) and not timed.search(name)}
        for line in lines
    ]  # fmt: skip


PAIRS = (
    ("fsdp", "ddp"), ("ddp then fsdp", "ddp"), ("fsdp then ddp", "ddp"),
    ("parts fsdp", "parts ddp"),
)  # fmt: skip


def test_both_modes_train_alike(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """Dropout too; each figure of training and of validation, the weights and the optimizer's."""
    mp.spawn(work, args=(tmp_path,), nprocs=RANKS)  # type: ignore[no-untyped-call]
    for name, other in PAIRS:
        with subtests.test(name):
            found, expected = metrics(tmp_path / name), metrics(tmp_path / other)
            assert len(found) == len(expected) > 16
            for mine, theirs in zip(found, expected, strict=True):
                assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-6)
            torch.testing.assert_close(
                last(tmp_path / name), last(tmp_path / other), rtol=1e-4, atol=1e-6
            )
    with subtests.test("stopped and resumed it is bitwise the same"):
        torch.testing.assert_close(
            last(tmp_path / "fsdp stopped"), last(tmp_path / "fsdp"), rtol=0, atol=0
        )
    with subtests.test("each rank holds its share"):
        shares = [json.loads((tmp_path / f"shares-{r}.json").read_text()) for r in range(RANKS)]
        assert sum(held for held, _ in shares) == shares[0][1]
        # Layers of an odd height are not divided evenly.
        assert max(held for held, _ in shares) < 0.6 * shares[0][1]


def test_a_rank_that_is_alone_has_nothing_to_share() -> None:
    config = io.load(CONFIG, [*TINY, "model.parallel=fsdp"])
    world = World(0, 0, 1, torch.device("cpu"))
    assert isinstance(strategy_of(config, world), DataParallel)
