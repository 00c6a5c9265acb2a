"""Networks from and to the discrete codes of a sound codec."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

PATCHES = 8


class CodeEncoder(nn.Module):
    """What the codes stand for, standardised: its mean and spread over a TR, and learned features.

    Codes are looked up in the codec's own codebooks rather than in a table to be learned: a film
    shows most of the 1024 codes of a codebook too rarely.

    Parameters
    ----------
    codebooks : Tensor, (Q, codes, dimensions)
    mean, deviation : Tensor, (dimensions,)
        Of what the training TRs' codes stand for.
    code_width, width : int
    """

    codebooks: torch.Tensor
    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(
        self,
        codebooks: torch.Tensor,
        *,
        mean: torch.Tensor,
        deviation: torch.Tensor,
        code_width: int,
        width: int,
    ) -> None:
        super().__init__()
        for name, values in (("codebooks", codebooks), ("mean", mean), ("deviation", deviation)):
            self.register_buffer(name, values.clone())
        dimensions = len(mean)
        self.hidden = nn.Linear(dimensions, code_width)
        self.join = nn.Linear(2 * dimensions + code_width, width)

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        """Encode (B, W, Q, C) int16 to (B, W, width)."""
        vectors = torch.stack(
            [book[audio[:, :, number].long()] for number, book in enumerate(self.codebooks)]
        ).sum(0)  # (B, W, C, dimensions)
        sound = (vectors - self.mean) / self.deviation
        learned = functional.gelu(self.hidden(sound)).mean(2)
        spread = sound.var(2, unbiased=False).add(1e-4).sqrt()
        return self.join(torch.cat([sound.mean(2), spread, learned], 2))


class CodeDecoder(nn.Module):
    """Logits of the audio codes at some of a TR's frames.

    Parameters
    ----------
    log_probability : Tensor, (Q, codes)
        Of each code in training, natural logarithms: where the logits start.
    frames, bottleneck, width : int
    """

    def __init__(
        self, log_probability: torch.Tensor, *, frames: int, bottleneck: int, width: int
    ) -> None:
        super().__init__()
        codebooks, codes = log_probability.shape
        self.parts = min(PATCHES, frames)
        self.size = -(-frames // self.parts)
        self.each = nn.Linear(bottleneck, self.parts * width)
        self.position = nn.Parameter(torch.zeros(frames, width))
        self.codebook = nn.Parameter(torch.zeros(codebooks, width))
        heads = [nn.Linear(width, codes) for _ in range(codebooks)]
        for head, values in zip(heads, log_probability, strict=True):
            head.bias.data.copy_(values)
            head.weight.data.mul_(0.1)
        self.logits = nn.ModuleList(heads)

    def forward(self, bottleneck: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Decode (B, L, Z) at ``frames`` (n,) to (B, L, n, Q, codes)."""
        parts = self.each(bottleneck).unflatten(2, (self.parts, -1))
        hidden = parts[:, :, frames // self.size] + self.position[frames]  # (B, L, n, width)
        return torch.stack(
            [
                head(functional.gelu(hidden + vector))
                for head, vector in zip(self.logits, self.codebook, strict=True)
            ],
            dim=3,
        )
