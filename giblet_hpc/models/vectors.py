"""Linear maps from and to features that are vectors: text, log-mel, and the like."""

from __future__ import annotations

import torch
from torch import nn


class VectorEncoder(nn.Module):
    """A linear map of standardised features (text, log-mel).

    Parameters
    ----------
    mean : Tensor
        Training mean of the features, in their shape.
    variance : float
        Mean of their training variances.
    width : int
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, mean: torch.Tensor, variance: float, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", mean.flatten().clone())
        self.register_buffer("scale", torch.tensor(variance, dtype=torch.float32).sqrt())
        self.linear = nn.Linear(mean.numel(), width)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Encode (B, W, ...) to (B, W, width)."""
        return self.linear((values.flatten(2) - self.mean) / self.scale)


class VectorDecoder(nn.Module):
    """A linear map from the bottleneck to features, which starts at their training mean.

    Parameters
    ----------
    bottleneck : int
    mean : Tensor
        Of the features, in their shape.
    """

    def __init__(self, bottleneck: int, mean: torch.Tensor) -> None:
        super().__init__()
        self.shape = tuple(mean.shape)
        self.linear = nn.Linear(bottleneck, mean.numel())
        self.linear.bias.data.copy_(mean.flatten())

    def forward(self, bottleneck: torch.Tensor) -> torch.Tensor:
        """Decode (B, L, Z) to (B, L, ...)."""
        return self.linear(bottleneck).unflatten(2, self.shape)
