"""`fsdp`: each rank holds its share of every layer, of the gradients and of the optimizer."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from giblet_hpc.training.global_sums import with_global_batch_norm
from giblet_hpc.training.optimizer import moments
from giblet_hpc.training.pieces import Piece, Source, flat, whole
from giblet_hpc.training.strategy import DataParallel, Draw, Read
from giblet_hpc.training.world import World

LARGE = 10**6
"""A layer with more parameters than this is gathered by itself, when it is needed."""


class FullySharded(DataParallel):
    """`fsdp`: torch's `fully_shard`, by layers.

    Any mode, with any number of ranks, goes on from its checkpoints.

    Parameters
    ----------
    world : World
        Of several ranks.
    bf16 : bool
        Whether large layers are gathered in bf16, in which they compute anyway: half the traffic.
        Their gradients are summed in float32.
    """

    name = "fsdp"

    def __init__(self, world: World, *, bf16: bool = False) -> None:
        super().__init__(world)
        low = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        self._precision = low if bf16 else MixedPrecisionPolicy()
        # Nothing here is changed in place.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        self._mesh = init_device_mesh(world.device.type, (world.size,))

    def prepare(self, model: nn.Module, draw: Draw) -> nn.Module:
        """Shard the model layer by layer; no rank holds it whole."""
        for layer in list(model.modules()):
            draw(layer)
            own = sum(parameter.numel() for parameter in layer.parameters(recurse=False))
            if own > LARGE and layer is not model:
                fully_shard(layer, mesh=self._mesh, mp_policy=self._precision)
        model = with_global_batch_norm(model, self.sums)
        fully_shard(model, mesh=self._mesh)
        return model

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model, which averages its own gradients."""
        return model

    @contextlib.contextmanager
    def no_sync(self, wrapped: nn.Module) -> Iterator[None]:
        """Keep whole gradients on each rank, until the last part of a step."""
        assert isinstance(wrapped, FSDPModule)
        wrapped.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            wrapped.set_requires_gradient_sync(True)

    def clip(self, model: nn.Module, limit: float) -> float:
        """Clip by the norm over all ranks' shares."""
        norm = nn.utils.clip_grad_norm_(model.parameters(), limit)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def pieces(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Piece]:
        """Return this rank's shares, and its part of what all ranks have."""
        common, own = [], []
        tensors = flat(model.state_dict(), moments(optimizer))
        for name, values in tensors.items():
            if isinstance(values, DTensor):
                start = self._share(values.shape[0]).start
                shape = tuple(values.shape)
                own.append(Piece(name, values.to_local().detach(), shape, 0, start))
            else:
                common += whole({name: values})
        return own + self.my_share(common)

    def reader(self, source: Source, model: nn.Module) -> Read:
        """Return what reads this rank's shares alone."""
        # The optimizer numbers parameters as the model lists them.
        state, listed = model.state_dict(), list(model.parameters())

        def read(name: str) -> torch.Tensor:
            kind, _, rest = name.partition("/")
            if kind == "model":
                return self._read(source, name, state[rest])
            return self._moment(source, name, listed[int(rest.partition("/")[0])])

        return read

    def _moment(self, source: Source, name: str, parameter: nn.Parameter) -> torch.Tensor:
        """Return a moment, divided as its parameter is; a count of steps as it is."""
        if source.shape(name) != tuple(parameter.shape):
            return source.read(name)
        values = self._read(source, name, parameter)
        if not isinstance(parameter, DTensor):
            return values
        return DTensor.from_local(
            values.to(parameter.device), parameter.device_mesh, parameter.placements,
            run_check=False, shape=parameter.shape, stride=parameter.stride(),
        )  # fmt: skip

    def _read(self, source: Source, name: str, like: torch.Tensor) -> torch.Tensor:
        if not isinstance(like, DTensor):
            return source.read(name)
        return source.read(name, 0, self._share(like.shape[0]))

    def _share(self, rows: int) -> slice:
        """Return which rows of a tensor this rank has, as torch divides them."""
        size = -(-rows // self.world.size)
        start = min(rows, self.world.rank * size)
        return slice(start, min(rows, start + size))
