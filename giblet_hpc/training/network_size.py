"""Sizes of a config's network and of one step of it, traced on the meta device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from giblet_hpc.config.run import RunConfig
from giblet_hpc.modalities.base import SPAN, Modality
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.models.dense import SumOverFrames
from giblet_hpc.models.shapes import Batch, Shapes
from giblet_hpc.plans.study_size import StudySize
from giblet_hpc.training import tensor_parallel
from giblet_hpc.training.expected_size import ROW_TYPES
from giblet_hpc.training.predictor import build_model

TRACED = 2
"""Windows of the step that is traced: BatchNorm cannot do with one."""


@dataclass(frozen=True)
class Network:
    """A network and one step of it, as far as plans need them.

    Parameters
    ----------
    weights : int
        Parameters.
    layers : mapping of str to int
        Weights of each layer that has some of its own.
    sent : mapping of str to int
        For each layer that tensor mode divides, the numbers a sample that ranks exchange of it,
        forward and backward.
    activations : int
        Bytes kept for the backward pass, for each window.
    inputs : int
        Bytes of a window's rows and scans.
    operations : float
        Floating-point operations of a window's forward pass.
    """

    weights: int
    layers: Mapping[str, int]
    sent: Mapping[str, int]
    activations: int
    inputs: int
    operations: float


def meta_model(config: RunConfig, size: StudySize) -> nn.Module:
    """Return a config's network on the meta device: its layers, without their numbers."""
    return _on_meta(config, size)[0]


def network_of(config: RunConfig, size: StudySize) -> Network:
    """Trace the forward pass of a config's network on the meta device.

    Parameters
    ----------
    config : RunConfig
    size : StudySize
    """
    model, modalities, batch = _on_meta(config, size)
    windows = len(batch.inside)
    inputs = sum(v.numel() * v.element_size() for v in (*batch.stimulus.values(), batch.bold))
    with FlopCounterMode(display=False) as counter:
        kept = _kept(model, modalities, batch, recompute=config.model.recompute)
    return Network(
        sum(p.numel() for p in model.parameters()),
        {n: sum(p.numel() for p in m.parameters(recurse=False)) for n, m in model.named_modules()},
        {name: _exchanged(m) for name, m in model.named_modules() if tensor_parallel.divides(m)},
        kept // windows,
        inputs // windows,
        counter.get_total_flops() / windows,
    )


@dataclass(frozen=True)
class Layer:
    """A layer with weights of its own.

    Parameters
    ----------
    name, kind : str
    output : tuple of int
        Shape of what it makes of one window, as far as it is a tensor.
    tensors : mapping of str to tuple of int
        Shapes of its own parameters.
    weights : int
    operations : float
        Floating-point operations of a window's forward pass, with those of layers inside it that
        have no weights.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    tensors: Mapping[str, tuple[int, ...]]
    weights: int
    operations: float


def layers_of(config: RunConfig, size: StudySize) -> list[Layer]:
    """Return a config's layers in the order in which they are built.

    Parameters
    ----------
    config : RunConfig
    size : StudySize
    """
    model, modalities, batch = _on_meta(config, size)
    outputs: dict[str, tuple[int, ...]] = {}
    owners = {
        name: module
        for name, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    }
    for name, module in owners.items():

        def note(_: nn.Module, inputs: Any, made: Any, name: str = name) -> None:
            if isinstance(made, torch.Tensor):
                outputs[name] = tuple(made.shape)

        module.register_forward_hook(note)
    with FlopCounterMode(display=False) as counter:
        model(batch, _positions(modalities))
    work = {key: sum(found.values()) for key, found in counter.get_flop_counts().items()}
    windows = len(batch.inside)
    root = type(model).__name__
    return [
        Layer(
            name or root,
            type(module).__name__,
            outputs.get(name, ()),
            {one: tuple(p.shape) for one, p in module.named_parameters(recurse=False)},
            sum(p.numel() for p in module.parameters(recurse=False)),
            (work.get(f"{root}.{name}", 0) if name else 0) / windows,
        )
        for name, module in owners.items()
    ]


def _on_meta(config: RunConfig, size: StudySize) -> tuple[nn.Module, dict[str, Modality], Batch]:
    modalities = _modalities(config, size)
    shapes = Shapes({n: m.shape for n, m in modalities.items()}, size.subjects, size.voxels)
    model = build_model(config, shapes, modalities).to("meta").train()
    return model, modalities, _batch(config, shapes, modalities)


def _positions(modalities: Mapping[str, Modality]) -> dict[str, torch.Tensor]:
    return {
        name: where.to("meta")
        for name, modality in modalities.items()
        if modality.reconstructed and (where := modality.positions(torch.Generator())) is not None
    }


def _modalities(config: RunConfig, size: StudySize) -> dict[str, Modality]:
    """Return modalities that know the shapes of their rows, and nothing of what is in them."""
    bound = {}
    for name, modality in modalities_of(config.features).items():
        row = size.rows[name]
        estimates = modality.placeholder_estimates(row)
        if modality.spanned and config.model.span is not None:
            shape = math.prod(row), config.model.span
            estimates[SPAN] = np.broadcast_to(np.zeros(1, np.float16), shape)
        seen = modality.inputs(np.zeros((1, *row), np.float32), estimates)
        bound[name] = modality.fitted(seen.shape[1:], estimates)
    return bound


def _batch(config: RunConfig, shapes: Shapes, modalities: Mapping[str, Modality]) -> Batch:
    """Return windows on the meta device, as many as BatchNorm can do with."""
    trs = config.train.window_trs
    seen = trs + config.memory_trs
    with torch.device("meta"):
        stimulus = {
            name: torch.empty(TRACED, seen, *shape, dtype=getattr(torch, ROW_TYPES[len(shape)]))
            for name, shape in shapes.stimulus.items()
        }
        bold = torch.empty(TRACED, trs, shapes.subjects, shapes.voxels)
        inside = torch.empty(TRACED, seen, dtype=torch.bool)
        return Batch(stimulus, inside, bold, torch.empty(bold.shape[:3], dtype=torch.bool))


def _kept(
    model: nn.Module, modalities: Mapping[str, Modality], batch: Batch, *, recompute: bool
) -> int:
    """Return the bytes that a forward pass keeps for the backward pass, with those of its loss."""
    own = {id(p) for p in model.parameters()}
    parts = _parts(model) if recompute else []
    whole: dict[int, int] = {}
    inside: list[dict[int, int]] = [{} for _ in parts]
    now = [whole]

    def pack(values: torch.Tensor) -> torch.Tensor:
        base = values if values._base is None else values._base
        if id(base) not in own and values.is_meta:
            storage = values.untyped_storage()
            now[-1][storage._cdata] = storage.nbytes()
        return values

    for part, found in zip(parts, inside, strict=True):

        def enter(_: nn.Module, inputs: Any, found: dict[int, int] = found) -> None:
            for values in inputs:
                if isinstance(values, torch.Tensor):
                    pack(values)
            now.append(found)

        part.register_forward_pre_hook(enter)
        part.register_forward_hook(lambda *_: now.pop() and None)
    positions = _positions(modalities)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda values: values):
        output = model(batch, positions)
    outputs = [output.bold, *output.reconstruction.values()]
    # One part at a time is computed again.
    largest = max((sum(found.values()) for found in inside), default=0)
    # Errors keep a difference and its square, or logits and their softmax.
    return sum(whole.values()) + largest + sum(2 * 4 * values.numel() for values in outputs)


def _parts(model: nn.Module) -> list[nn.Module]:
    parts = model.parts
    assert isinstance(parts, list)
    return parts


def _exchanged(layer: nn.Module) -> int:
    """Return the numbers that a layer's ranks send for a sample; an all-reduce sends each twice."""
    if isinstance(layer, SumOverFrames):
        return 2 * layer.bias.numel()
    assert isinstance(layer, nn.Linear)
    return layer.out_features + 2 * layer.in_features
