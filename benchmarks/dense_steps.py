"""Some steps of the dense model on random inputs, in each parallel mode.

    python benchmarks/dense_steps.py                      # one GPU: 3,500,188,290 parameters
    python benchmarks/dense_steps.py --ranks 8 --modes original ddp fsdp tensor
    python benchmarks/dense_steps.py --ranks 2 --width 0.0625 --modes original ddp fsdp tensor

Time, memory, bytes and losses; ratios are to the first mode. `original` is the recipe that is
rebuilt here: bf16 parameters, BatchNorm over each rank's own samples, activations computed again
in the backward pass, AdamW by lists of tensors, DDP. On CPUs, what goes over the loopback
interface is counted.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from giblet_hpc.config import io
from giblet_hpc.config.loss import Loss
from giblet_hpc.models.shapes import Batch
from giblet_hpc.plans.hardware import GPUS, Place
from giblet_hpc.training import describe, planner
from giblet_hpc.training.expected_size import expected_size
from giblet_hpc.training.fully_sharded import FullySharded
from giblet_hpc.training.losses import Losses
from giblet_hpc.training.strategy import DataParallel, Draw, drawing
from giblet_hpc.training.tensor_parallel import TensorParallel
from giblet_hpc.training.world import World

ROOT = Path(__file__).parents[1]
VARIANCES = {"video": 0.083, "audio": 87_000.0, "text": 1.0}


class Original(DataParallel):
    """The recipe of the system that is rebuilt here."""

    def prepare(self, model: nn.Module, draw: Draw) -> nn.Module:
        model = super().prepare(model, draw)
        for layer in model.modules():
            if isinstance(layer, nn.Sequential):
                layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)
        return model.to(torch.bfloat16)

    def wrap(self, model: nn.Module) -> nn.Module:
        return DistributedDataParallel(model) if self.world.size > 1 else model


def strategy_of(mode: str, world: World) -> DataParallel:
    if mode == "original":
        return Original(world)
    if world.size == 1 or mode == "ddp":
        return DataParallel(world)
    return FullySharded(world) if mode == "fsdp" else TensorParallel(world, world.size)


def random_batch(given: argparse.Namespace, rank: int, size: int, device: torch.device) -> Batch:
    """The windows of one rank, of those that share a batch."""
    random = torch.Generator().manual_seed(0)
    count = given.batch
    video = (count, 1, given.frames, *describe.SHAPES[0])
    stimulus = {
        "video": torch.randint(0, 255, video, dtype=torch.uint8, generator=random),
        "audio": torch.randint(
            0, 1024, (count, 1, *describe.SHAPES[1]), dtype=torch.int16, generator=random
        ),
        "text": torch.randn(count, 1, *describe.SHAPES[2], generator=random),
    }
    bold = torch.randn(count, 1, 1, given.voxels, generator=random)
    mine = slice(rank, None, size)
    here = torch.ones(len(bold[mine]), 1, dtype=torch.bool, device=device)
    return Batch(
        {name: values[mine].to(device) for name, values in stimulus.items()},
        here, bold[mine].to(device), here[..., None],
    )  # fmt: skip


def received() -> int:
    """Bytes that the loopback interface has received."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.strip().startswith("lo:"))


def resident(name: str) -> int:
    """Bytes of this process's memory: VmRSS now, VmHWM at most since it was reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def planned(mode: str, given: argparse.Namespace) -> float | None:
    """What `giblet-hpc plan` says of a GPU's memory, without what CUDA takes, in GiB."""
    if mode == "original":
        return None
    settings = ["bold.mode=cross_subject", "model.kind=dense", f"model.width={given.width}",
                "train.window_trs=1",
                f"train.batch_windows={given.batch}", f"model.parallel={mode}",
                f"train.precision={'auto' if torch.cuda.is_available() else 'fp32'}"]  # fmt: skip
    config = io.load(ROOT / "configs" / "sherlock_production.yaml", settings)
    size = expected_size(config, voxels=given.voxels, fps=given.frames * 4 / 1.5)
    place = Place(GPUS["a6000"], given.ranks, 1, 1.0, 1.0)
    memory = planner.estimates(config, size, place)[mode].memory
    return (sum(memory.values()) - memory["reserved"]) / 2**30


def measure(mode: str, given: argparse.Namespace, world: World) -> dict[str, Any]:
    device = world.device
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    strategy = strategy_of(mode, world)
    torch.manual_seed(0)
    bf16 = mode == "original" or given.parameters == "bfloat16"
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if bf16 else previous)
    with torch.device("meta"):
        model, coders = describe.original(given.frames, given.voxels, width=given.width)
    parameters = sum(p.numel() for p in model.parameters())
    model = strategy.prepare(model, drawing(model, 0))
    torch.set_default_dtype(previous)
    fused = {"foreach": True} if mode == "original" else {"fused": True}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, **fused)
    wrapped = strategy.wrap(model).train()
    for name, variance in VARIANCES.items():
        coders[name] = coders[name].fitted(coders[name].shape, {"variance": variance})
    losses = Losses(Loss(normalise="variance"), coders, 1.0)
    batch = random_batch(given, strategy.sums.rank, strategy.sums.size, device)
    seen, seconds, counted = [], [], received()
    for _ in range(given.steps):
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16 or device.type == "cuda"):
            output = wrapped(batch, {})
        loss = sum(losses.components(output, batch, {}, strategy.sums).values())
        loss.backward()
        strategy.clip(model, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seen.append(float(strategy.sums.reduce(loss.detach().clone()) / strategy.sums.size))
        world.wait()
        seconds.append(time.perf_counter() - started)
    counted = received() - counted
    on_cpu = resident("VmHWM") - before
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else on_cpu
    held = sum(p.numel() for p in getattr(model, "module", model).parameters())
    return {
        "mode": mode,
        "parameters": parameters,
        "on_rank_0": held,
        "first_step_seconds": seconds[0],
        "median_step_seconds": sorted(seconds[1:])[len(seconds[1:]) // 2],
        "bytes_sent_a_step": counted / given.steps if device.type == "cpu" else None,
        "peak_gib": peak / 2**30,
        "planned_gib": planned(mode, given),
        "losses": seen,
    }


def work(rank: int, given: argparse.Namespace, folder: str) -> None:
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", rank) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    world = World(rank, rank, given.ranks, device, given.ranks)
    if given.ranks > 1:
        torch.set_num_threads(1)
        store = dist.FileStore(f"{folder}/ranks", given.ranks)
        dist.init_process_group(
            "nccl" if gpu else "gloo", rank=rank, world_size=given.ranks, store=store
        )
    results = []
    tiny = argparse.Namespace(**{**vars(given), "width": 1 / 256, "voxels": 1000, "steps": 2})
    for mode in given.modes:
        # What is loaded on first use is not the model's.
        measure(mode, tiny, world)
        results.append(measure(mode, given, world))
        gc.collect()
        if gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    if rank == 0:
        first = results[0]
        for result in results:
            for name in ("median_step_seconds", "bytes_sent_a_step"):
                if result[name] and first[name]:
                    result[f"{name}_of_the_first"] = result[name] / first[name]
        place = torch.cuda.get_device_name() if gpu else "CPU"
        about = {"device": place, "torch": torch.__version__, **vars(given)}
        sys.stdout.write(json.dumps({**about, "results": results}, indent=1) + "\n")
    if given.ranks > 1:
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modes", nargs="+", default=["ddp"])
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=16, help="samples of all ranks")
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--voxels", type=int, default=83_138)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--parameters", choices=["float32", "bfloat16"], default="float32")
    given = parser.parse_args()
    assert math.gcd(given.batch, given.ranks) == given.ranks
    with tempfile.TemporaryDirectory() as folder:
        if given.ranks == 1:
            work(0, given, folder)
        else:
            mp.spawn(work, args=(given, folder), nprocs=given.ranks)


if __name__ == "__main__":
    main()
