"""Ten steps of the dense model at 3,500,188,290 parameters on one GPU.

    python benchmarks/dense_steps.py [--steps 10] [--batch 16]

Random inputs: it measures time and memory, and that the loss is finite and falls.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import torch

from giblet_hpc.models.shapes import Batch
from giblet_hpc.training.describe import original

FRAMES, VOXELS = 10, 83_138


def random_batch(count: int, device: torch.device) -> Batch:
    generator = torch.Generator(device).manual_seed(0)
    kwargs = {"generator": generator, "device": device}
    return Batch(
        {
            "video": torch.randint(0, 255, (count, 1, 10, 90, 160, 3), dtype=torch.uint8, **kwargs),
            "audio": torch.randint(0, 1024, (count, 1, 8, 112), dtype=torch.int16, **kwargs),
            "text": torch.randn(count, 1, 3072, **kwargs),
        },
        torch.ones(count, 1, dtype=torch.bool, device=device),
        torch.randn(count, 1, 1, VOXELS, **kwargs),
        torch.ones(count, 1, 1, dtype=torch.bool, device=device),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=16)
    arguments = parser.parse_args()
    device = torch.device("cuda")
    torch.manual_seed(0)
    with device:
        model = original(FRAMES, VOXELS).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    batch = random_batch(arguments.batch, device)
    losses, seconds = [], []
    for _ in range(arguments.steps):
        torch.cuda.synchronize()
        started = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            output = model(batch, {})
            loss = (output.bold.float() - batch.bold).square().mean()
            video = batch.stimulus["video"][:, :, :1].float() / 255
            loss = loss + (output.reconstruction["video"].float() - video).square().mean() / 0.083
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
        losses.append(float(loss.detach()))
    result = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "batch": arguments.batch,
        "first_step_seconds": seconds[0],
        "median_step_seconds": sorted(seconds[1:])[len(seconds[1:]) // 2],
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
        "losses": losses,
    }
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
