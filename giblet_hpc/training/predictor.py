"""A fold's model with what it reads: all that is needed to predict. The trainer owns one too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import ConfigError
from giblet_hpc.modalities.base import Modality
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.models.dense import DenseModel, with_layer_norm
from giblet_hpc.models.shapes import Batch, Halves, Output, Positions, Shapes
from giblet_hpc.models.temporal import TemporalNet
from giblet_hpc.training.batches import WindowReader
from giblet_hpc.training.feed import StudyArrays
from giblet_hpc.training.pieces import Source
from giblet_hpc.training.schedule import mixed_seed
from giblet_hpc.training.statistics import (
    TrainingStatistics,
    fitted_modalities,
    model_inputs,
)
from giblet_hpc.training.strategy import Strategy, drawing, read_into

POSITIONS_SEED = 2**20


@dataclass(frozen=True)
class Predictor:
    """A fold's model, its modalities, and the reader of its windows.

    Parameters
    ----------
    config : RunConfig
    shapes : Shapes
    modalities : mapping of str to Modality
        Bound to the fold's estimates.
    statistics : TrainingStatistics
    reader : WindowReader
    model : nn.Module
        On the device.
    device : torch.device
    """

    config: RunConfig
    shapes: Shapes
    modalities: Mapping[str, Modality]
    statistics: TrainingStatistics
    reader: WindowReader
    model: nn.Module
    device: torch.device

    def predict(self, batch: Batch) -> Output:
        """Run the model as validation does."""
        return self.forward(self.model, batch, self.positions(None))

    def forward(self, model: nn.Module, batch: Batch, positions: Positions) -> Output:
        """Run the model, or what stands in its place, in the precision of the config."""
        bf16 = uses_bf16(self.config, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            output: Output = model(batch, positions)
        return output

    def reconstruct(
        self, bottleneck: torch.Tensor, positions: Positions
    ) -> dict[str, torch.Tensor]:
        """Return each modality's (B, L, ...) from a bottleneck (B, L, Z), on the device."""
        bf16 = uses_bf16(self.config, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            return cast(Halves, self.model).reconstruct(bottleneck, positions)

    def scans(self, bottleneck: torch.Tensor, inside: torch.Tensor, target: int) -> torch.Tensor:
        """Return the last ``target`` TRs' (B, L, S, V) from a bottleneck (B, W, Z)."""
        bf16 = uses_bf16(self.config, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            return cast(Halves, self.model).scans(bottleneck, inside, target)

    @property
    def reconstructed(self) -> dict[str, Modality]:
        """The modalities that the network reconstructs."""
        return {name: kind for name, kind in self.modalities.items() if kind.reconstructed}

    def positions(self, step: int | None) -> dict[str, torch.Tensor]:
        """Return where in a TR modalities are reconstructed: drawn by step, or evenly (None)."""
        drawn = {}
        for name, modality in self.reconstructed.items():
            generator = None
            if step is not None:
                seed = mixed_seed(self.config.train.seed, step, POSITIONS_SEED)
                generator = torch.Generator().manual_seed(seed)
            where = modality.positions(generator)
            if where is not None:
                drawn[name] = where.to(self.device)
        return drawn

    def whole_positions(self) -> dict[str, torch.Tensor]:
        """Return all places in a TR, of modalities that are reconstructed at some."""
        return {
            name: where.to(self.device)
            for name, modality in self.reconstructed.items()
            if (where := modality.whole_positions()) is not None
        }

    def load(self, source: Source) -> None:
        """Put a checkpoint's weights into the model, for evaluation."""
        read_into(self.model, source.read)
        self.model.eval()


def make_predictor(
    config: RunConfig, study: StudyArrays, statistics: TrainingStatistics, strategy: Strategy
) -> Predictor:
    """Return a fold's predictor, its model initialised from ``train.seed`` and the estimates."""
    modalities = fitted_modalities(modalities_of(config.features), study, statistics)
    shapes = Shapes(
        {name: modality.shape for name, modality in modalities.items()},
        subjects=len(study.subjects),
        voxels=study.voxels,
    )
    device = strategy.world.device
    reader = WindowReader(
        study,
        model_inputs(modalities, study),
        trs=config.train.window_trs,
        context=config.memory_trs,
        device=device,
    )
    model = build_model(config, shapes, modalities)
    model = strategy.prepare(model, drawing(model, config.train.seed))
    return Predictor(config, shapes, modalities, statistics, reader, model, device)


def build_model(config: RunConfig, shapes: Shapes, modalities: Mapping[str, Modality]) -> nn.Module:
    """Return the network, initialised from ``train.seed`` and the modalities' estimates.

    The dense model is on the meta device, as it may be larger than a machine's memory: each layer
    is drawn when there is a place for it.
    """
    if config.model.kind == "dense":
        with torch.device("meta"):
            dense = DenseModel(
                shapes, modalities, bottleneck=config.model.bottleneck, width=config.model.width
            )
            return dense if config.model.norm == "batch" else with_layer_norm(dense)
    torch.manual_seed(config.train.seed)
    return TemporalNet(
        shapes,
        modalities,
        bottleneck=config.model.bottleneck,
        options=config.model.temporal,
        tr=config.study.tr,
    )


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
