"""What a batch's ranks compute together does not depend on how many they are: real gloo ranks."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from giblet_hpc.config.loss import Loss
from giblet_hpc.models.shapes import Batch, Output
from giblet_hpc.training.global_sums import (
    ALONE,
    GlobalBatchNorm1d,
    GlobalSums,
    with_global_batch_norm,
)
from giblet_hpc.training.losses import Losses

STEPS = 20
WINDOWS, SUBJECTS, VOXELS = 8, 2, 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, VOXELS))


def batch_of(rank: int, size: int) -> tuple[torch.Tensor, Batch]:
    """A rank's windows of one TR each; subjects lack scans unevenly."""
    random = torch.Generator().manual_seed(1)
    stimulus = torch.randn(WINDOWS, 5, generator=random)
    bold = torch.randn(WINDOWS, 1, SUBJECTS, VOXELS, generator=random)
    valid = torch.ones(WINDOWS, 1, SUBJECTS, dtype=torch.bool)
    valid[0] = valid[3, :, 1] = False
    mine = slice(rank, None, size)
    inside = torch.ones(WINDOWS, 1, dtype=torch.bool)
    return stimulus[mine], Batch({}, inside[mine], bold[mine], valid[mine])


KINDS: dict[str, dict[str, object]] = {
    "mse and correlation": {"fmri": "mse", "correlation_weight": 0.3},
    "correlation": {"fmri": "correlation"},
    "mae": {"fmri": "mae"},
}


def work(rank: int, size: int, folder: Path) -> None:
    """Train with each kind of loss, as one of several ranks."""
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", rank=rank, world_size=size,
        store=dist.FileStore(str(folder / f"ranks-{size}"), size),
    )  # fmt: skip
    found = {kind: train(rank, size, options) for kind, options in KINDS.items()}
    if rank == size - 1:
        torch.save(found, folder / f"{size}.pt")
    dist.barrier()
    dist.destroy_process_group()


def train(rank: int, size: int, options: dict[str, object]) -> dict[str, torch.Tensor]:
    sums = GlobalSums(size)
    model = with_global_batch_norm(network(), sums)
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.03)
    losses = Losses(Loss(**options), {}, 1.0)  # type: ignore[arg-type]
    stimulus, batch = batch_of(rank, size)
    seen = []
    for _ in range(STEPS):
        bold = wrapped(stimulus)[:, None, None]
        output = Output(bold, bold, bold.new_zeros(()), {})
        loss = losses.components(output, batch, {}, sums)["fmri"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        seen.append(float(mean) / size)
    return {"losses": torch.tensor(seen), **model.state_dict()}


def test_training_is_the_same_on_any_number_of_ranks(tmp_path: Path) -> None:
    """Losses, weights and BatchNorm's running statistics, though ranks have unequal numbers."""
    for size in (1, 2, 4):
        mp.spawn(work, args=(size, tmp_path), nprocs=size)  # type: ignore[no-untyped-call]
    one, *others = (torch.load(tmp_path / f"{size}.pt", weights_only=True) for size in (1, 2, 4))
    for kind in KINDS:
        assert one[kind]["losses"][-1] < one[kind]["losses"][0]
        for other in others:
            for name, value in one[kind].items():
                torch.testing.assert_close(other[kind][name], value, rtol=0, atol=1e-9, msg=name)


def test_on_one_rank_it_is_torchs_batch_norm() -> None:
    torch.manual_seed(0)
    theirs = nn.BatchNorm1d(7, dtype=torch.float64)
    with torch.no_grad():
        theirs.weight.uniform_()
        theirs.bias.uniform_()
    ours = GlobalBatchNorm1d(nn.BatchNorm1d(7, dtype=torch.float64), ALONE)
    ours.load_state_dict(theirs.state_dict())
    values = torch.randn(9, 7, dtype=torch.float64)
    inputs = [values.clone().requires_grad_() for _ in range(2)]
    outputs = [layer(x) for layer, x in zip((theirs, ours), inputs, strict=True)]
    torch.testing.assert_close(outputs[1], outputs[0])
    for output in outputs:
        output.pow(3).sum().backward()
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    for layer in (theirs, ours):
        layer.eval()
    torch.testing.assert_close(ours(values), theirs(values))


def test_shares_weigh_means_by_what_they_are_of() -> None:
    assert [float(share) for share in ALONE.shares(torch.tensor(3), torch.tensor(0))] == [1.0, 0.0]
