"""How training is spread over ranks: one class a parallel mode. The loop knows no mode.

A strategy owns what differs between modes: how the model is wrapped and its gradients agreed on,
what a whole state is and who has it, and the seed of each rank's dropout.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from giblet_hpc.training.global_sums import GlobalSums, with_global_batch_norm
from giblet_hpc.training.schedule import mixed_seed
from giblet_hpc.training.world import World

State = dict[str, Any]
Draw = Callable[[nn.Module], None]
"""Gives a layer of the meta device its first values, on the CPU; its children have none yet."""


def drawing(model: nn.Module, seed: int) -> Draw:
    """Return what draws each layer's values by itself, so that no rank needs the whole model.

    Parameters
    ----------
    model : nn.Module
        On the meta device, or with values, which stay.
    seed : int
        Each layer's values follow from it and from the layer's place in the model.
    """
    numbers = {layer: number for number, layer in enumerate(model.modules())}

    def draw(layer: nn.Module) -> None:
        own = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
        if not any(values.is_meta for values in own):
            return
        reset = layer.reset_parameters
        assert callable(reset)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mixed_seed(seed, numbers[layer]))
            layer.to_empty(device="cpu", recurse=False)
            reset()

    return draw


class Strategy(Protocol):
    """A parallel mode."""

    name: str
    """As checkpoints name their maker."""
    world: World
    sums: GlobalSums
    """Over the ranks that share a batch, of which each sees other windows."""

    def prepare(self, model: nn.Module, draw: Draw) -> nn.Module:
        """Return the model on this rank's device, its layers ready for this mode.

        Layers are drawn, and what this rank keeps of them moved, one after the other.
        """

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return what training calls in the model's place, its gradients averaged over ranks."""

    def no_sync(self, wrapped: nn.Module) -> contextlib.AbstractContextManager[object]:
        """Hold back the averaging of gradients, for all but the last part of a step."""

    def clip(self, model: nn.Module, limit: float) -> float:
        """Scale gradients down to a norm; return the norm before, the same on all ranks."""

    def state(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> State | None:
        """Return the whole state on the rank that writes it; None on the others."""

    def load(self, state: State, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Put a whole state into this rank's model and optimizer."""

    def seed_dropout(self, seed: int, step: int) -> None:
        """Make a step's dropout a function of the seed, the step and this rank's windows."""


class DataParallel:
    """`ddp`: every rank holds the whole model and its share of a batch.

    Parameters
    ----------
    world : World
    """

    name = "ddp"

    def __init__(self, world: World) -> None:
        self.world = world
        self.sums = GlobalSums.over(world)

    def prepare(self, model: nn.Module, draw: Draw) -> nn.Module:
        """Move the model; its BatchNorm sees the batches of all ranks."""
        for layer in model.modules():
            draw(layer)
            layer._apply(self._moved, recurse=False)  # type: ignore[no-untyped-call]
        return with_global_batch_norm(model, self.sums)

    def _moved(self, values: torch.Tensor) -> torch.Tensor:
        return values.to(self.world.device)

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model with gradients averaged over all ranks."""
        if self.sums.size == 1:
            return model
        # DDP otherwise regroups its buckets after the first step, so that a resumed run would sum
        # gradients in another order than an undisturbed one.
        return DistributedDataParallel(
            model,
            process_group=self.sums.group,
            gradient_as_bucket_view=True,
            find_unused_parameters=True,
        )

    def no_sync(self, wrapped: nn.Module) -> contextlib.AbstractContextManager[object]:
        """Hold back the all-reduce of gradients."""
        if isinstance(wrapped, DistributedDataParallel):
            return wrapped.no_sync()
        return contextlib.nullcontext()

    def clip(self, model: nn.Module, limit: float) -> float:
        """Clip by the norm of the averaged gradient, which every rank has."""
        return float(nn.utils.clip_grad_norm_(model.parameters(), limit))

    def state(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> State | None:
        """Return rank 0's, as all are equal."""
        if not self.world.is_main:
            return None
        return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}

    def load(self, state: State, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Load the whole state on every rank."""
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])

    def seed_dropout(self, seed: int, step: int) -> None:
        """Seed torch's generator; ranks that see different windows differ."""
        torch.manual_seed(mixed_seed(seed, step, self.sums.rank))
