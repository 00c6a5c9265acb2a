"""`tensor`: ranks compute each batch together; each holds a share of the largest layers.

Activations go between ranks, not weights. The first layer is divided by pixels (its partial sums
are added up), the layers to voxels and to pixels by their outputs (which are gathered); all other
layers are equal on all ranks. After Megatron-LM (Shoeybi et al. 2019, arXiv:1909.08053, part 3).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from giblet_hpc.errors import NodeError
from giblet_hpc.models.dense import SumOverFrames
from giblet_hpc.training.global_sums import GlobalSums
from giblet_hpc.training.optimizer import moments
from giblet_hpc.training.pieces import Piece, Source, flat, spread, whole
from giblet_hpc.training.strategy import DataParallel, Draw, Read
from giblet_hpc.training.world import World

LARGE = 10**7
"""A layer with more weights than this is divided by its outputs."""


def divides(layer: nn.Module) -> bool:
    """Whether ranks hold shares of a layer."""
    large = type(layer) is nn.Linear and layer.weight.numel() > LARGE
    return large or isinstance(layer, SumOverFrames)


@dataclass(frozen=True)
class Team:
    """The ranks that compute a batch together.

    Parameters
    ----------
    ranks : tuple of int
        Global ranks.
    number : int
        Which of them this one is.
    group : dist.ProcessGroup
    """

    ranks: tuple[int, ...]
    number: int
    group: dist.ProcessGroup

    def share(self, size: int, number: int | None = None) -> slice:
        """Return which of ``size`` rows or columns a member has; the first ones have one more."""
        number = self.number if number is None else number
        least, more = divmod(size, len(self.ranks))
        start = number * least + min(number, more)
        return slice(start, start + least + (number < more))


class TensorParallel(DataParallel):
    """`tensor`, in teams of ranks; teams share batches as ranks of `ddp` do.

    Any mode, with any number of ranks, goes on from its checkpoints.

    Parameters
    ----------
    world : World
    size : int
        Ranks of a team, which divides the ranks of a node.
    """

    def __init__(self, world: World, size: int) -> None:
        super().__init__(world)
        self.name = f"tensor, teams of {size}"
        teams = [tuple(range(start, start + size)) for start in range(0, world.size, size)]
        across = [tuple(range(number, world.size, size)) for number in range(size)]
        groups = {ranks: dist.new_group(list(ranks)) for ranks in [*teams, *across]}
        mine = teams[world.rank // size]
        other = across[world.rank % size]
        self._team = Team(mine, mine.index(world.rank), groups[mine])
        self.sums = GlobalSums(len(other), other.index(world.rank), groups[other])
        self._divided: dict[str, int] = {}
        self._sizes: dict[str, int] = {}

    def prepare(self, model: nn.Module, draw: Draw) -> nn.Module:
        """Keep this rank's share of the large layers, and move the model."""
        shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
        for name, layer in list(model.named_modules()):
            draw(layer)
            if isinstance(layer, SumOverFrames):
                _replace(model, name, PixelShare(layer, self._team, draw))
                self._divided |= {f"{name}.frames.{n}.weight": 1 for n in range(len(layer.frames))}
            elif isinstance(layer, nn.Linear) and divides(layer):
                _replace(model, name, OutputShare(layer, self._team))
                self._divided |= {f"{name}.weight": 0, f"{name}.bias": 0}
        self._sizes = {name: shapes[name][axis] for name, axis in self._divided.items()}
        return super().prepare(model, draw)

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model; gradients are averaged where they are clipped."""
        return model

    def clip(self, model: nn.Module, limit: float) -> float:
        """Average gradients over teams, then clip by the norm over the shares of a team.

        What ranks have in common is averaged over all of them, in one order, so that it stays the
        same in every bit; DDP's groups would each add in an order of their own.
        """
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        own = [g for name, g in gradients.items() if name in self._divided]
        common = [g for name, g in gradients.items() if name not in self._divided]
        if self.sums.size > 1:
            for gradient in own:
                self.sums.reduce(gradient).div_(self.sums.size)
            together = self.world.sum(torch.cat([g.reshape(-1) for g in common]))
            together.div_(self.world.size)
            parts = torch.split(together, [g.numel() for g in common])
            for gradient, part in zip(common, parts, strict=True):
                gradient.copy_(part.view_as(gradient))
        shares = self.world.sum(nn.utils.get_total_norm(own) ** 2) / self.sums.size
        norm = (shares + nn.utils.get_total_norm(common) ** 2).sqrt()
        nn.utils.clip_grads_with_norm_(model.parameters(), limit, norm)
        return float(norm)

    def pieces(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Piece]:
        """Return this rank's shares, where its team writes them, and its part of the rest."""
        self._require_agreement(model)
        names = [name for name, _ in model.named_parameters()]
        common, divided = [], []
        for name, values in flat(model.state_dict(), moments(optimizer)).items():
            axis = self._axis(name, names, values.ndim)
            if axis is None:
                common += whole({name: values})
                continue
            shape = list(values.shape)
            shape[axis] = self._sizes[self._parameter(name, names)]
            start = self._team.share(shape[axis]).start
            divided.append(Piece(name, values, tuple(shape), axis, start))
        # Teams hold the same: each writes some.
        writer = spread([p.name for p in divided], [p.values.numel() for p in divided],
                        self.sums.size)  # fmt: skip
        own = [piece for piece in divided if writer[piece.name] == self.sums.rank]
        return own + self.my_share(common)

    def reader(self, source: Source, model: nn.Module) -> Read:
        """Return what reads this rank's shares alone."""
        names = [name for name, _ in model.named_parameters()]

        def read(name: str) -> torch.Tensor:
            shape = source.shape(name)
            axis = self._axis(name, names, len(shape))
            if axis is None:
                return source.read(name)
            return source.read(name, axis, self._team.share(shape[axis]))

        return read

    def whole_shapes(self, model: nn.Module) -> dict[str, tuple[int, ...]]:
        """Return the whole shapes of what is divided."""
        shapes = {}
        for name, parameter in model.named_parameters():
            if name in self._divided:
                whole_shape = list(parameter.shape)
                whole_shape[self._divided[name]] = self._sizes[name]
                shapes[name] = tuple(whole_shape)
        return shapes

    def _axis(self, name: str, names: Sequence[str], dimensions: int) -> int | None:
        """Return the axis that a piece's tensor is divided along; None where it is not."""
        return self._divided.get(self._parameter(name, names)) if dimensions else None

    @staticmethod
    def _parameter(name: str, names: Sequence[str]) -> str:
        """Return the parameter that a piece is of, or of whose moments."""
        kind, _, rest = name.partition("/")
        return rest if kind == "model" else names[int(rest.partition("/")[0])]

    def _require_agreement(self, model: nn.Module) -> None:
        """Check that what ranks have in common is equal.

        Raises
        ------
        NodeError
            When a rank has computed something else than the others, as faulty memory does.
        """
        common = [p for name, p in model.named_parameters() if name not in self._divided]
        own = torch.stack([p.detach().view(torch.int32).sum(dtype=torch.int64) for p in common])
        lowest, highest = own.clone(), own.clone()
        dist.all_reduce(lowest, dist.ReduceOp.MIN)
        dist.all_reduce(highest, dist.ReduceOp.MAX)
        if not torch.equal(lowest, highest):
            raise NodeError(
                "ranks hold different weights of layers that they have in common: one of their "
                "GPUs computes wrongly",
                hint="`giblet-hpc doctor --job` looks at each; the last checkpoint is good",
            )


class PixelShare(SumOverFrames):
    """The first layer's share of pixels, of all frames.

    Parameters
    ----------
    whole : SumOverFrames
        Whose weights' part it keeps.
    team : Team
    draw : callable
        Draws frames' weights, one after the other.
    """

    def __init__(self, whole: SumOverFrames, team: Team, draw: Draw) -> None:
        nn.Module.__init__(self)
        self._team, self._pixels = team, whole.weight_of(0).shape[1]
        self._share = team.share(self._pixels)
        self.frames, self.bias = whole.frames, whole.bias
        for layer in self.frames:
            assert isinstance(layer, nn.Linear)
            draw(layer)
            layer.weight = nn.Parameter(layer.weight.detach()[:, self._share].clone())

    def summed(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the sum over frames and over all ranks' pixels."""
        # Films have no gradient; this layer returns none for its inputs.
        frames = inputs.detach().view(len(inputs), len(self.frames), self._pixels)
        partial = super().summed(frames[:, :, self._share].flatten(1))
        total: torch.Tensor = _Total.apply(partial, self._team)  # type: ignore[no-untyped-call]
        return total


class OutputShare(nn.Linear):
    """A layer's share of its outputs; what the other ranks compute is gathered.

    Parameters
    ----------
    whole : nn.Linear
        Whose weights' part it keeps.
    team : Team
    """

    def __init__(self, whole: nn.Linear, team: Team) -> None:
        super().__init__(whole.in_features, whole.out_features, device="meta")
        share = team.share(whole.out_features)
        self._team = team
        self.weight = nn.Parameter(whole.weight.detach()[share].clone())
        self.bias = nn.Parameter(whole.bias.detach()[share].clone())

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Map (N, inputs) to (N, outputs), on all ranks."""
        same: torch.Tensor = _Same.apply(input, self._team)  # type: ignore[no-untyped-call]
        own = super().forward(same)
        whole: torch.Tensor = _Gathered.apply(  # type: ignore[no-untyped-call]
            own, self._team, self.out_features
        )
        return whole


class _Total(torch.autograd.Function):
    """The sum over a team of what each computes from its own part; all get its gradient."""

    @staticmethod
    def forward(ctx: Any, partial: torch.Tensor, team: Team) -> torch.Tensor:
        del ctx
        total = partial.detach().clone()
        dist.all_reduce(total, group=team.group)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        del ctx
        return gradients[0], None


class _Same(torch.autograd.Function):
    """What a team has in common; its gradient is the sum of those of their shares."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, team: Team) -> torch.Tensor:
        ctx.team = team
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        total = gradients[0].to(torch.promote_types(gradients[0].dtype, torch.float32), copy=True)
        dist.all_reduce(total, group=ctx.team.group)
        return total.to(gradients[0].dtype), None


class _Gathered(torch.autograd.Function):
    """The outputs of all of a team side by side; each takes the gradient of its own."""

    @staticmethod
    def forward(ctx: Any, own: torch.Tensor, team: Team, outputs: int) -> torch.Tensor:
        ctx.share = team.share(outputs)
        # Shares differ by one; what is sent may not.
        longest = math.ceil(outputs / len(team.ranks))
        padded = nn.functional.pad(own.detach(), (0, longest - own.shape[1])).contiguous()
        parts = [torch.empty_like(padded) for _ in team.ranks]
        dist.all_gather(parts, padded, group=team.group)
        return torch.cat([part[:, :size] for part, size in _sizes(parts, team, outputs)], 1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return gradients[0][:, ctx.share], None, None


def _sizes(
    parts: list[torch.Tensor], team: Team, outputs: int
) -> Iterator[tuple[torch.Tensor, int]]:
    """Yield the members' parts with how many outputs each has."""
    for number, part in enumerate(parts):
        share = team.share(outputs, number)
        yield part, share.stop - share.start


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Put a layer in the place of the one of that name."""
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, layer)
