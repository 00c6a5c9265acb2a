"""How training is spread over ranks: one class a parallel mode. The loop knows no mode.

A strategy owns what differs between modes: how the model is wrapped and its gradients agreed on,
what a whole state is and who has it, and the seed of each rank's dropout.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Protocol

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from giblet_hpc.training.global_sums import GlobalSums, with_global_batch_norm
from giblet_hpc.training.optimizer import moments, whole_moments
from giblet_hpc.training.pieces import Piece, Source, flat, spread, whole
from giblet_hpc.training.schedule import mixed_seed
from giblet_hpc.training.world import World

Read = Callable[[str], torch.Tensor]
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


def held_here(values: torch.Tensor) -> torch.Tensor:
    """Return what this rank holds of a tensor, which only `fsdp` divides.

    Asked by its method, not its class: that takes a second to import, in processes without it too.
    """
    return values.to_local() if hasattr(values, "to_local") else values


def read_into(model: nn.Module, read: Read, names: Container[str] | None = None) -> None:
    """Put a checkpoint's weights and buffers into a model, one after the other.

    Parameters
    ----------
    model : nn.Module
    read : callable
        Returns this rank's part of a tensor.
    names : container of str, optional
        Those of the model's tensors to read; all by default.
    """
    with torch.no_grad():
        for name, place in model.state_dict().items():
            if names is None or name in names:
                here = held_here(place)
                here.copy_(read(f"model/{name}"))


def matching(source: Source, model: nn.Module, sizes: Mapping[str, Sequence[int]]) -> set[str]:
    """Return which of a model's tensors a source has, in the same shape.

    Parameters
    ----------
    source : Source
    model : nn.Module
    sizes : mapping of str to sequence of int
        Shapes of whole tensors of which a rank has a part.
    """
    known = set(source.names())
    return {
        name
        for name, values in model.state_dict().items()
        if f"model/{name}" in known
        and source.shape(f"model/{name}") == tuple(sizes.get(name, values.shape))
    }


def moments_of(source: Source) -> dict[int, list[str]]:
    """Return the names of each parameter's moments, by the number that the optimizer gives it."""
    found: dict[int, list[str]] = {}
    for name in source.names():
        kind, _, rest = name.partition("/")
        if kind == "optimizer":
            number, _, part = rest.partition("/")
            found.setdefault(int(number), []).append(part)
    return found


def moments_into(
    optimizer: torch.optim.Optimizer, names: Mapping[int, Sequence[str]], read: Read
) -> None:
    """Put a checkpoint's moments into an optimizer, whose settings stay."""
    (group,) = optimizer.param_groups
    state = {
        number: whole_moments(
            {
                # A copy: what is read is mapped from a file that will be removed.
                part: read(f"optimizer/{number}/{part}").to(
                    group["params"][number].device, copy=True
                )
                for part in parts
            }
        )
        for number, parts in names.items()
    }
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


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

    def pieces(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Piece]:
        """Return what this rank writes of a checkpoint; all ranks have to call."""

    def load(self, source: Source, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Put this rank's part of a checkpoint into its model and optimizer."""

    def start_from(self, source: Source, model: nn.Module) -> set[str]:
        """Put those weights into the model that fit; return their names."""

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

    def pieces(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Piece]:
        """Return this rank's share of the tensors, which all have."""
        return self.my_share(whole(flat(model.state_dict(), moments(optimizer))))

    def my_share(self, pieces: list[Piece]) -> list[Piece]:
        """Return those of pieces that all ranks have which this one writes."""
        sizes = [piece.values.numel() * piece.values.element_size() for piece in pieces]
        names = [piece.name for piece in pieces]
        writer = spread(names, sizes, self.world.size)
        return [piece for piece in pieces if writer[piece.name] == self.world.rank]

    def load(self, source: Source, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Read this rank's part of everything: all of it, but where a mode divides it."""
        read = self.reader(source, model)
        read_into(model, read)
        moments_into(optimizer, moments_of(source), read)

    def start_from(self, source: Source, model: nn.Module) -> set[str]:
        """Read what has the same name and shape."""
        names = matching(source, model, self.whole_shapes(model))
        read_into(model, self.reader(source, model), names)
        return names

    def reader(self, source: Source, model: nn.Module) -> Read:
        """Return what reads this rank's part of a tensor."""
        del model
        return source.read

    def whole_shapes(self, model: nn.Module) -> dict[str, tuple[int, ...]]:
        """Return the whole shapes of the model's tensors of which this rank has a part."""
        del model
        return {}

    def seed_dropout(self, seed: int, step: int) -> None:
        """Seed torch's generator; ranks that see different windows differ."""
        torch.manual_seed(mixed_seed(seed, step, self.sums.rank))
