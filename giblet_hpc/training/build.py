"""Building a fold's network from its config and its fitted estimates."""

from __future__ import annotations

import torch
from torch import nn

from giblet_hpc.config import RunConfig
from giblet_hpc.errors import ConfigError
from giblet_hpc.models.dense import DenseModel
from giblet_hpc.models.shapes import Shapes
from giblet_hpc.models.temporal import (
    CodeDecoder,
    CodeEncoder,
    FrameEncoder,
    TemporalNet,
    VectorEncoder,
    VideoDecoder,
)
from giblet_hpc.training.fitted import Fitted


def build_model(config: RunConfig, shapes: Shapes, fitted: Fitted) -> nn.Module:
    """Return the network, initialised from ``train.seed`` and the training estimates."""
    torch.manual_seed(config.train.seed)
    if config.model.kind == "dense":
        return DenseModel(shapes, config.model.bottleneck)
    model = TemporalNet(
        shapes,
        bottleneck=config.model.bottleneck,
        options=config.model.temporal,
        tr=config.study.tr,
    )
    _install_estimates(model, fitted)
    return model


def _install_estimates(model: TemporalNet, fitted: Fitted) -> None:
    """Set input scales to the training estimates, and outputs to start at the training mean."""

    def value(name: str) -> torch.Tensor:
        return torch.as_tensor(fitted.values[name], dtype=torch.float32)

    for name, encoder in model.encoders.items():
        if isinstance(encoder, FrameEncoder):
            encoder.mean.copy_(value("video_mean").mean())
            encoder.scale.copy_(value("video_variance").sqrt())
        elif isinstance(encoder, VectorEncoder):
            encoder.mean.copy_(value(f"{name}_mean").flatten())
            encoder.scale.copy_(value(f"{name}_variance").sqrt())
        else:
            assert isinstance(encoder, CodeEncoder)
            encoder.codebooks.copy_(value("sound_codebooks"))
            encoder.mean.copy_(value("sound_mean"))
            encoder.deviation.copy_(value("sound_deviation"))
    for name, decoder in model.decoders.items():
        if isinstance(decoder, VideoDecoder):
            decoder.mean.copy_(value("video_mean"))
        elif isinstance(decoder, CodeDecoder):
            decoder.set_unigram(value("audio_log_probability"))
        else:
            assert isinstance(decoder, nn.Linear)
            decoder.bias.data.copy_(value(f"{name}_mean").flatten())


def context_trs(config: RunConfig) -> int:
    """Return how many TRs before its targets a window must hold."""
    return config.memory_trs


def uses_bf16(config: RunConfig, device: torch.device) -> bool:
    """Whether the forward pass runs in bf16 on this device.

    Raises
    ------
    ConfigError
        When bf16 is asked for by name and the device lacks it.
    """
    able = device.type == "cuda" and torch.cuda.is_bf16_supported()
    if config.train.precision == "bf16" and not able:
        raise ConfigError(
            f"train.precision bf16: {device.type} does not have it", hint="auto or fp32"
        )
    return able and config.train.precision != "fp32"
