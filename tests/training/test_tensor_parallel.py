"""The dense model at 1/64 of its width trains alike in every mode, on any number of gloo ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from giblet_hpc.config.features import AudioFeatures, Features, TextFeatures, VideoFeatures
from giblet_hpc.config.loss import Loss
from giblet_hpc.errors import NodeError
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.models.dense import DenseModel, SumOverFrames
from giblet_hpc.models.shapes import Batch, Shapes
from giblet_hpc.training import checkpoint, fully_sharded, tensor_parallel
from giblet_hpc.training.fully_sharded import FullySharded
from giblet_hpc.training.losses import Losses
from giblet_hpc.training.strategy import DataParallel, Strategy, drawing, matching
from giblet_hpc.training.tensor_parallel import TensorParallel
from giblet_hpc.training.voxel_sums import VoxelSums
from giblet_hpc.training.world import World

STEPS, WINDOWS, SUBJECTS, VOXELS = 20, 12, 2, 1003
SHAPES: tuple[tuple[int, ...], ...] = ((3, 6, 7, 3), (8, 5), (24,))
FEATURES = Features(video=VideoFeatures(), audio=AudioFeatures(), text=TextFeatures())
MODES: dict[str, Callable[[World], Strategy]] = {
    "ddp": DataParallel,
    "fsdp": FullySharded,
    "tensor": lambda world: TensorParallel(world, world.size),
    "tensor x ddp": lambda world: TensorParallel(world, world.size // 2),
}


def modalities() -> dict[str, Any]:
    random = np.random.default_rng(0)
    estimates = {
        "video": {"variance": np.float64(0.1), "mean": random.random(SHAPES[0])},
        "audio": {"variance": np.float64(9e4), "mean": np.full(SHAPES[1], 500.0)},
        "text": {"variance": np.float64(1.0), "mean": np.zeros(SHAPES[2])},
    }
    found = modalities_of(FEATURES)
    return {
        name: found[name].fitted(shape, estimates[name])
        for name, shape in zip(found, SHAPES, strict=True)
    }


def build(coders: dict[str, Any], dropout: float) -> nn.Module:
    stimulus = {name: coder.shape for name, coder in coders.items()}
    with torch.device("meta"):
        model = DenseModel(Shapes(stimulus, 1, VOXELS), coders, bottleneck=32, width=1 / 64)
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = dropout
    return model


def batch_of(rank: int, size: int) -> Batch:
    """Windows of one TR each, of one of the ranks that share a batch; scans are missing."""
    random = torch.Generator().manual_seed(1)
    video = torch.randint(256, (WINDOWS, 1, *SHAPES[0]), generator=random, dtype=torch.uint8)
    audio = torch.randint(1024, (WINDOWS, 1, *SHAPES[1]), generator=random, dtype=torch.int16)
    text = torch.randn(WINDOWS, 1, *SHAPES[2], generator=random)
    bold = torch.randn(WINDOWS, 1, SUBJECTS, VOXELS, generator=random)
    valid = torch.ones(WINDOWS, 1, SUBJECTS, dtype=torch.bool)
    valid[0] = valid[3, :, 1] = False
    mine = slice(rank, None, size)
    inside = torch.ones(WINDOWS, 1, dtype=torch.bool)
    stimulus = {"video": video[mine], "audio": audio[mine], "text": text[mine]}
    return Batch(stimulus, inside[mine], bold[mine], valid[mine])


class Training:
    """Some steps of training in one mode."""

    def __init__(self, strategy: Strategy, dropout: float = 0.0) -> None:
        self.strategy, self.coders = strategy, modalities()
        model = build(self.coders, dropout)
        self.model = strategy.prepare(model, drawing(model, 0))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.wrapped = strategy.wrap(self.model)
        options = Loss(correlation_weight=0.3, normalise="variance")
        self.losses = Losses(options, self.coders, 1.0)
        self.batch = batch_of(strategy.sums.rank, strategy.sums.size)
        self.seen: list[float] = []

    def step(self) -> None:
        sums = self.strategy.sums
        self.strategy.seed_dropout(3, len(self.seen))
        self.wrapped.train()
        output = self.wrapped(self.batch, {})
        loss = sum(self.losses.components(output, self.batch, {}, sums).values())
        assert isinstance(loss, torch.Tensor)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = self.strategy.clip(self.model, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        mean = sums.reduce(loss.detach().clone()) / sums.size
        self.seen += [float(mean), norm]

    @torch.no_grad()
    def scores(self) -> torch.Tensor:
        self.model.eval()
        output = self.model(self.batch, {})
        sums = VoxelSums(["run"], subjects=SUBJECTS, voxels=VOXELS, device=torch.device("cpu"))
        for window in range(len(self.batch.bold)):
            sums.add("run", output.bold, self.batch, window)
        sums.reduce(self.strategy.sums)
        return sums.correlation()

    def save(self, folder: Path) -> None:
        writer = checkpoint.Writer(folder, self.strategy.world, keep_last=1)
        pieces = self.strategy.pieces(self.model, self.optimizer)
        writer.save(pieces, {"step": 0}, best=False)
        writer.wait()


def work(rank: int, size: int, folder: Path) -> None:
    """As one of several ranks, train in each mode that they can."""
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    fully_sharded.LARGE = tensor_parallel.LARGE = 20_000
    dist.init_process_group(
        "gloo", rank=rank, world_size=size,
        store=dist.FileStore(str(folder / f"ranks-{size}"), size),
    )  # fmt: skip
    world = World(rank, rank, size, torch.device("cpu"), size)
    modes = {1: ["ddp"], 2: list(MODES)[:3], 4: list(MODES), 6: []}[size]
    for mode in modes:
        training = Training(MODES[mode](world))
        for _ in range(STEPS):
            training.step()
        keep(folder / f"{size} {mode}.pt", rank, training)
    if size == 4:
        resumed(rank, world, folder)
        started(rank, world, folder)
    if size == 6:
        three_teams(world)
    if size == 2:
        with_dropout(rank, world, folder)
        count_bytes(rank, world, folder)
        disagree(rank, world, folder)
    dist.destroy_process_group()


def three_teams(world: World) -> None:
    """Sums of three in several groups: what ranks have in common stays the same in every bit."""
    training = Training(TensorParallel(world, 2))
    for _ in range(3):
        training.step()
        training.strategy.pieces(training.model, training.optimizer)


def keep(file: Path, rank: int, training: Training) -> None:
    training.save(file.with_suffix(".checkpoint"))
    scores = training.scores()
    if rank == 0:
        torch.save({"seen": training.seen, "scores": scores}, file)


def resumed(rank: int, world: World, folder: Path) -> None:
    """Go on from a state of one mode in another, and in the same."""
    for first, then in (("tensor", "tensor"), ("tensor x ddp", "tensor"), ("fsdp", "tensor"),
                        ("tensor", "ddp")):  # fmt: skip
        training = Training(MODES[first](world))
        for _ in range(STEPS // 2):
            training.step()
        between = folder / f"{first} before {then}"
        training.save(between)
        again = Training(MODES[then](world))
        source, _ = checkpoint.load(between / "step-00000000")
        again.strategy.load(source, again.model, again.optimizer)
        again.seen = training.seen
        for _ in range(STEPS // 2):
            again.step()
        keep(folder / f"{first} then {then}.pt", rank, again)
        dist.barrier()


def started(rank: int, world: World, folder: Path) -> None:
    """Start from the weights of one mode in another; what has another shape stays as drawn."""
    source, _ = checkpoint.load(folder / "4 tensor.checkpoint" / "step-00000000")
    for name, make in MODES.items():
        training = Training(make(world))
        taken = training.strategy.start_from(source, training.model)
        assert taken == set(training.model.state_dict()), name
        keep(folder / f"from tensor in {name}.pt", rank, training)
        dist.barrier()
        other = Training(make(world))
        plain = matching(source, other.model, {})
        whole = matching(source, other.model, other.strategy.whole_shapes(other.model))
        assert plain <= whole
        assert (plain < whole) == name.startswith("tensor"), "shares have shapes of their own"


def with_dropout(rank: int, world: World, folder: Path) -> None:
    """One team's dropout is that of one rank alone."""
    for name, strategy in (
        ("alone", DataParallel(World(0, 0, 1, torch.device("cpu")))),
        ("a team", TensorParallel(world, 2)),
    ):
        training = Training(strategy, dropout=0.3)
        for _ in range(5):
            training.step()
        if rank == 0:
            torch.save(torch.tensor(training.seen), folder / f"dropout {name}.pt")


def count_bytes(rank: int, world: World, folder: Path) -> None:
    """Note how many numbers each mode sends in a step, and how many a rank holds."""
    sent = 0
    reduce, gather = dist.all_reduce, dist.all_gather

    def counted_reduce(values: torch.Tensor, *rest: Any, **more: Any) -> Any:
        nonlocal sent
        sent += values.numel()
        return reduce(values, *rest, **more)

    def counted_gather(parts: list[torch.Tensor], own: torch.Tensor, **more: Any) -> Any:
        nonlocal sent
        sent += own.numel()
        return gather(parts, own, **more)

    training = Training(MODES["tensor"](world))
    dist.all_reduce, dist.all_gather = counted_reduce, counted_gather
    try:
        training.step()
    finally:
        dist.all_reduce, dist.all_gather = reduce, gather
    held = sum(p.numel() for p in training.model.parameters())
    whole = sum(p.numel() for p in build(modalities(), 0.0).parameters())
    if rank == 0:
        torch.save(torch.tensor([sent, held, whole]), folder / "numbers.pt")


def disagree(rank: int, world: World, folder: Path) -> None:
    """A weight that ranks have in common differs on one of them."""
    training = Training(MODES["tensor"](world))
    if rank == 1:
        next(p for n, p in training.model.named_parameters() if "joint" in n).data[0] += 1e-9
    with pytest.raises(NodeError, match="ranks hold different weights"):
        training.strategy.pieces(training.model, training.optimizer)


def found(folder: Path, name: str) -> dict[str, Any]:
    values: dict[str, Any] = torch.load(folder / f"{name}.pt", weights_only=True)
    state = checkpoint.tensors_of(folder / f"{name}.checkpoint" / "step-00000000")
    return {**values, "state": state}


ALIKE = (
    "2 ddp", "2 fsdp", "2 tensor", "4 ddp", "4 fsdp", "4 tensor", "4 tensor x ddp",
    "tensor then tensor", "tensor x ddp then tensor", "fsdp then tensor", "tensor then ddp",
)  # fmt: skip


@pytest.mark.slow
def test_every_mode_trains_alike(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """Losses and gradient norms of each step, the final scores, the whole state."""
    for size in (1, 2, 4, 6):
        mp.spawn(work, args=(size, tmp_path), nprocs=size)  # type: ignore[no-untyped-call]
    one = found(tmp_path, "1 ddp")
    assert len(one["seen"]) == 2 * STEPS
    assert one["seen"][-2] < one["seen"][0]
    for name in ALIKE:
        with subtests.test(name):
            other = found(tmp_path, name)
            for part, rtol in (("seen", 0.0), ("scores", 0.0), ("state", 1e-9)):
                torch.testing.assert_close(other[part], one[part], rtol=rtol, atol=1e-6)
    with subtests.test("resumed in its own mode it is bitwise the same"):
        again = found(tmp_path, "tensor then tensor")
        torch.testing.assert_close(again, found(tmp_path, "4 tensor"), rtol=0, atol=0)
    for name in MODES:
        with subtests.test("weights of another training", mode=name):
            scores = found(tmp_path, f"from tensor in {name}")["scores"]
            torch.testing.assert_close(scores, one["scores"], rtol=0, atol=1e-6)
    with subtests.test("dropout of a team is that of one rank"):
        alone, team = (torch.load(tmp_path / f"dropout {n}.pt") for n in ("alone", "a team"))
        torch.testing.assert_close(team, alone, rtol=0, atol=1e-9)
    with subtests.test("each rank holds about half; a step sends far less than all gradients"):
        sent, held, total = torch.load(tmp_path / "numbers.pt").tolist()
        assert held < 0.6 * total
        assert sent < 0.1 * total
    with subtests.test("each rank's file has its share"):
        files = sorted((tmp_path / "4 tensor.checkpoint").glob("*/*.safetensors"))
        sizes = [file.stat().st_size for file in files]
        assert len(sizes) == 4
        assert max(sizes) < 1.2 * min(sizes)


def test_a_sum_over_frames_is_one_linear_layer() -> None:
    torch.manual_seed(0)
    frames = SumOverFrames(3, 4, 5)
    whole = nn.Linear(12, 5)
    whole.weight.data = torch.cat([frames.weight_of(n).detach() for n in range(3)], 1)
    whole.bias.data = frames.bias.detach()
    values = torch.randn(7, 12)
    torch.testing.assert_close(frames(values), whole(values))
    drawn = torch.cat([p.detach().flatten() for p in SumOverFrames(30, 40, 50).parameters()])
    assert float(drawn.abs().max()) <= 1200**-0.5
    assert float(drawn.std()) == pytest.approx((1200 * 3) ** -0.5, rel=0.02)
