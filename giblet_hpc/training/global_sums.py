"""Sums over the ranks that share a batch, through which gradients flow."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from giblet_hpc.models.dense import with_norms
from giblet_hpc.training.world import World


class GlobalSums:
    """Sums over the ranks that share a batch.

    Every rank has to ask for the same sums in the same order.

    Parameters
    ----------
    size : int
        How many ranks share a batch. With one, nothing is sent.
    rank : int
        Which of them this one is: it has every ``size``-th window, from this one on.
    group : dist.ProcessGroup, optional
        Those ranks; all by default.
    """

    def __init__(self, size: int, rank: int = 0, group: dist.ProcessGroup | None = None) -> None:
        self.size, self.rank, self.group = size, rank, group

    @classmethod
    def over(cls, world: World) -> GlobalSums:
        """Return sums over all ranks."""
        return cls(world.size, world.rank)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over ranks; its gradient is that of all ranks' losses."""
        if self.size == 1:
            return values
        total: torch.Tensor = _Sum.apply(values, self.group)  # type: ignore[no-untyped-call]
        return total

    def reduce(self, values: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over ranks in its place, without gradients; return it."""
        if self.size > 1:
            dist.all_reduce(values, group=self.group)
        return values

    def shares(self, *counts: torch.Tensor) -> list[torch.Tensor]:
        """Return what each mean over a rank's own values has to be multiplied by.

        The mean over ranks of the products is then the mean over all values, whichever rank has
        them: training averages gradients over ranks.

        Parameters
        ----------
        counts : Tensor, scalars
            How many values this rank has.
        """
        own = torch.stack([count.double() for count in counts])
        total = self.sum(own.clone()).clamp(min=1)
        return list((self.size * own / total).to(torch.get_default_dtype()))


ALONE = GlobalSums(1)
"""For what one rank looks at by itself, as in validation."""


class _Sum(torch.autograd.Function):
    """All-reduce, forward and backward."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, group: dist.ProcessGroup | None) -> torch.Tensor:
        ctx.group = group
        total = values.detach().clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        total = gradients[0].clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


class GlobalBatchNorm1d(nn.BatchNorm1d):
    """BatchNorm over the batches of all ranks, on CPUs too; torch's own is for GPUs alone.

    All ranks have the same running statistics after each step. Parameters and buffers are those
    of `nn.BatchNorm1d`.

    Parameters
    ----------
    layer : nn.BatchNorm1d
        What it replaces, whose parameters it takes over.
    sums : GlobalSums
    """

    def __init__(self, layer: nn.BatchNorm1d, sums: GlobalSums) -> None:
        super().__init__(layer.num_features, layer.eps, layer.momentum, device="meta")
        self._parameters, self._buffers = layer._parameters, layer._buffers
        self._sums = sums

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise (N, C) values; in float32, whatever autocast has made of them."""
        if not self.training:
            return super().forward(input)
        values = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
        count = values.shape[0] * self._sums.size
        mean = self._sums.sum(values.sum(0)) / count
        centred = values - mean
        variance = self._sums.sum(centred.square().sum(0)) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        scaled = centred * torch.rsqrt(variance + self.eps)
        return (scaled * self.weight + self.bias).to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.momentum is not None and self.num_batches_tracked is not None
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)
        self.num_batches_tracked.add_(1)


def with_global_batch_norm(model: nn.Module, sums: GlobalSums) -> nn.Module:
    """Replace each BatchNorm of a model by one over all ranks' batches, where there are more."""
    return model if sums.size == 1 else with_norms(model, lambda n: GlobalBatchNorm1d(n, sums))


def pearson_over_time(
    predicted: torch.Tensor,
    measured: torch.Tensor,
    valid: torch.Tensor,
    *,
    sums: GlobalSums = ALONE,
    small: float = 1e-8,
) -> torch.Tensor:
    """Correlate each voxel's prediction with its scans over the time points of all ranks.

    Parameters
    ----------
    predicted, measured : Tensor, (T, S, V)
        Those of this rank.
    valid : Tensor, (T, S) bool
    sums : GlobalSums

    Returns
    -------
    Tensor, (S, V)
        The same on all ranks; 0 where either is constant.
    """
    weight = valid[..., None].to(measured.dtype)
    first = [weight.sum(0).expand_as(measured[0]), (predicted * weight).sum(0),
             (measured * weight).sum(0)]  # fmt: skip
    count, a_sum, b_sum = sums.sum(torch.stack(first))
    count = count.clamp(min=1)
    a = (predicted - a_sum / count) * weight
    b = (measured - b_sum / count) * weight
    both, a_square, b_square = sums.sum(
        torch.stack([(a * b).sum(0), (a * a).sum(0), (b * b).sum(0)])
    )
    return both / (a_square * b_square + small).sqrt()
