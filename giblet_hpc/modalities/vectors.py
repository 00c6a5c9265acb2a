"""What modalities share whose TRs are vectors: standardised by column, mapped linearly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from giblet_hpc.config.model import TemporalModel
from giblet_hpc.modalities.base import Estimates, Modality
from giblet_hpc.modalities.moments import mean_and_variance, moments
from giblet_hpc.models.vectors import VectorDecoder, VectorEncoder

CONSTANT = 1e-6
"""A column that varies less, of its own size or of 1, says nothing."""


class Vectors(Modality):
    """A modality whose columns are standardised by the training TRs before anything sees them."""

    def columns(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Return the columns of stored rows, (trs, columns)."""
        return np.asarray(rows, dtype=np.float32).reshape(len(rows), -1)

    def sums(self, rows: NDArray[Any], shared: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
        """Return moments of the columns."""
        del shared
        return moments(self.columns(rows))

    def settled(
        self, sums: Mapping[str, NDArray[Any]], shared: NDArray[Any] | None
    ) -> dict[str, NDArray[Any]]:
        """Return each column's mean and deviation; what is seen has mean 0 and variance 1."""
        del shared
        mean, variance = mean_and_variance(sums)
        deviation = np.sqrt(variance)
        deviation[deviation <= CONSTANT * np.maximum(1.0, np.abs(mean))] = np.inf
        return {
            "column_mean": mean.astype(np.float32),
            "column_deviation": deviation.astype(np.float32),
            "mean": np.zeros(len(mean), np.float32),
            "variance": np.ones(()),
        }

    @property
    def projects(self) -> bool:
        """Whether models see something else than the stored rows: standardised columns."""
        return True

    def inputs(self, rows: NDArray[Any], estimates: Estimates) -> NDArray[Any]:
        """Standardise the columns."""
        standard = (self.columns(rows) - estimates["column_mean"]) / estimates["column_deviation"]
        return np.asarray(standard, dtype=np.float32)

    def encoder(self, options: TemporalModel) -> nn.Module:
        """Return a linear map."""
        return VectorEncoder(self.estimate("mean"), 1.0, options.width)

    def decoder(self, options: TemporalModel, bottleneck: int) -> nn.Module:
        """Return a linear map."""
        del options
        return VectorDecoder(bottleneck, self.estimate("mean"))

    def baseline_features(
        self, inputs: NDArray[Any], shared: NDArray[Any] | None
    ) -> NDArray[np.float32]:
        """Return the standardised columns."""
        del shared
        return np.asarray(inputs, dtype=np.float32)

    def draw(
        self,
        axes: Sequence[Any],
        shown: torch.Tensor,
        predicted: torch.Tensor,
        *,
        positions: torch.Tensor | None,
    ) -> None:
        """Draw the columns over each other."""
        del positions
        draw_vectors(axes[0], shown, predicted, title=self.name)


def draw_vectors(axis: Any, shown: torch.Tensor, predicted: torch.Tensor, *, title: str) -> None:
    """Draw two rows of features over each other."""
    axis.plot(shown.flatten(), lw=0.8, label="shown")
    axis.plot(predicted.flatten(), lw=0.8, label="reconstructed")
    axis.set_title(title, fontsize=8)
    axis.legend(fontsize=6)
