"""The optimizer of a config, and its state as plain tensors."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from giblet_hpc.config.train import Train
from giblet_hpc.errors import ConfigError

CODES, SCALE, MAP = "codes", "scale", "qmap"
"""What a moment of 8 bits consists of: torchao's OptimState8bit."""


def make_optimizer(options: Train, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return AdamW, with its moments in float32 or in 8 bits.

    Raises
    ------
    ConfigError
        When 8 bits are asked for where they cannot be had.
    """
    settings: dict[str, Any] = {"lr": options.lr, "weight_decay": options.weight_decay}
    if options.optimizer == "adamw8bit":
        require_compiler("train.optimizer adamw8bit")
        made: torch.optim.Optimizer = _torchao().AdamW8bit(parameters, **settings)
        return made
    return torch.optim.AdamW(parameters, fused=True, **settings)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            # What is compiled reads it there.
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def require_compiler(setting: str) -> None:
    """Check that there is a C compiler, for settings that compile on the node.

    Raises
    ------
    ConfigError
        When there is none.
    """
    if not (shutil.which("gcc") or shutil.which("cc") or shutil.which("clang")):
        raise ConfigError(
            f"{setting} compiles on the node and needs a C compiler, which is not here",
            hint="docs/how-to/large-networks.md says how an image with one is built; or leave the "
            "setting out",
        )


def _torchao() -> Any:
    try:
        return importlib.import_module("torchao.optim")
    except ImportError as error:
        raise ConfigError(
            f"train.optimizer adamw8bit needs torchao: {error}",
            hint="`pip install torchao`, or `--set train.optimizer=adamw`",
        ) from error


def moments(optimizer: torch.optim.Optimizer) -> dict[int, dict[str, torch.Tensor]]:
    """Return each parameter's moments as plain tensors, by the number it has in the optimizer."""
    found: dict[int, dict[str, torch.Tensor]] = {}
    for number, parts in optimizer.state_dict()["state"].items():
        plain = found[number] = {}
        for name, values in parts.items():
            if hasattr(values, CODES):
                plain |= {f"{name}.{one}": getattr(values, one) for one in (CODES, SCALE, MAP)}
            else:
                plain[name] = values
    return found


def whole_moments(parts: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a parameter's moments from the plain tensors that `moments` has made of them."""
    found = {}
    for name, values in parts.items():
        moment, _, part = name.partition(".")
        if not part:
            found[name] = values
        elif part == CODES:
            kind = importlib.import_module("torchao.optim.subclass_8bit").OptimState8bit
            signed = moment == "exp_avg"
            scale, steps = parts[f"{moment}.{SCALE}"], parts[f"{moment}.{MAP}"]
            found[moment] = kind(values, scale, steps, signed, torch.float32)
    return found
