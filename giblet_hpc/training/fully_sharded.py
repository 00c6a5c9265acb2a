"""`fsdp`: each rank holds its share of every layer, of the gradients and of the optimizer."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from giblet_hpc.training.global_sums import with_global_batch_norm
from giblet_hpc.training.strategy import DataParallel, Draw, State
from giblet_hpc.training.world import World

LARGE = 10**6
"""A layer with more parameters than this is gathered by itself, when it is needed."""


class FullySharded(DataParallel):
    """`fsdp`: torch's `fully_shard`, by layers.

    Checkpoints hold whole tensors, as those of `ddp` do: either mode, with any number of ranks,
    goes on from the other's.

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
        return float(_whole(nn.utils.clip_grad_norm_(model.parameters(), limit)))

    def state(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> State | None:
        """Gather one tensor after the other; rank 0 keeps them, in its machine's memory."""
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        whole = _gathered(state, keep=self.world.is_main)
        return whole if self.world.is_main else None

    def load(self, state: State, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Take this rank's shares of a whole state, which every rank reads."""
        places = dict(model.named_parameters())
        held = model.state_dict()
        with torch.no_grad():
            for name, value in state["model"].items():
                place = held[name]
                place.copy_(_share(value, places[name]) if name in places else value)
        # The optimizer numbers parameters as the model lists them.
        listed = list(model.parameters())
        optimizer.load_state_dict({
            **state["optimizer"],
            "state": {
                number: {name: _share(value, listed[number]) for name, value in moments.items()}
                for number, moments in state["optimizer"]["state"].items()
            },
        })  # fmt: skip


def _whole(value: Any) -> Any:
    """Return a tensor whole, gathered from all ranks where each has a share."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _gathered(value: Any, *, keep: bool) -> Any:
    """Return a state with whole tensors on the CPU; every rank has to take part, one keeps them."""
    if isinstance(value, dict):
        return {name: _gathered(part, keep=keep) for name, part in value.items()}
    if isinstance(value, torch.Tensor):
        whole = _whole(value.detach())
        return whole.cpu() if keep else None
    return value


def _share(value: Any, like: nn.Parameter) -> Any:
    """Return this rank's share of a whole tensor, divided as a parameter is; others as they are."""
    if not isinstance(like, DTensor) or not isinstance(value, torch.Tensor):
        return value
    if value.shape != like.shape:
        return value
    whole = value.to(like.device)
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
