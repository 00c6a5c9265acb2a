"""The parts of a network that are computed by themselves: recomputed in the backward pass, or
compiled."""

from __future__ import annotations

import contextlib

import torch
from torch import nn
from torch._functorch import config as functorch
from torch.utils.checkpoint import checkpoint

from giblet_hpc.config.run import RunConfig
from giblet_hpc.training.optimizer import require_compiler


def apply_options(config: RunConfig, model: nn.Module) -> None:
    """Make a model recompute its parts, or compile them, as the config says.

    Parameters
    ----------
    config : RunConfig
    model : nn.Module
        With the property ``parts``. Its state keeps its names.

    Raises
    ------
    ConfigError
        When there is no compiler.
    """
    parts = model.parts
    assert isinstance(parts, list)
    if config.model.recompute:
        for part in parts:
            part.forward = _Recomputed(part)
    if config.model.compile:
        require_compiler("model.compile")
        # Gradients of the components are looked at before the backward pass.
        functorch.donated_buffer = False
        for part in parts:
            part.compile()


class _Recomputed:
    """A part's forward pass, of which the backward pass keeps the inputs alone.

    Parameters
    ----------
    part : nn.Module
    """

    def __init__(self, part: nn.Module) -> None:
        self._part, self._forward = part, part.forward

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled():
            output: torch.Tensor = self._forward(*inputs)
            return output
        found: torch.Tensor = checkpoint(
            self._forward, *inputs, use_reentrant=False, context_fn=self._contexts
        )
        return found

    def _contexts(
        self,
    ) -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
        return contextlib.nullcontext(), _Unchanged(self._part)


class _Unchanged:
    """Keeps a part's buffers as they are: BatchNorm counts a batch once, not twice.

    It is entered each time that the part is computed again.

    Parameters
    ----------
    part : nn.Module
    """

    def __init__(self, part: nn.Module) -> None:
        self._part = part
        self._before: list[torch.Tensor] = []

    def __enter__(self) -> None:
        self._before = [values.clone() for values in self._part.buffers()]

    @torch.no_grad()
    def __exit__(self, *_: object) -> None:
        for values, old in zip(self._part.buffers(), self._before, strict=True):
            values.copy_(old)
