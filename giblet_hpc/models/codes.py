"""Networks from and to sound: spectra, or the discrete codes of a codec."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

PATCHES = 8


class ColumnEncoder(nn.Module):
    """Columns of a TR's sound, standardised: their mean and spread over a TR, and learned features.

    How high a tone is, say, is no linear function of a spectrum.

    Parameters
    ----------
    mean, deviation : Tensor, (rows,)
        Of training columns.
    hidden, width : int
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(
        self, mean: torch.Tensor, deviation: torch.Tensor, *, hidden: int, width: int
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean.clone())
        self.register_buffer("deviation", deviation.clone())
        self.hidden = nn.Linear(len(mean), hidden)
        self.join = nn.Linear(2 * len(mean) + hidden, width)

    def forward(self, columns: torch.Tensor) -> torch.Tensor:
        """Encode (B, W, rows, C) to (B, W, width)."""
        sound = (columns.transpose(2, 3) - self.mean) / self.deviation
        learned = functional.gelu(self.hidden(sound)).mean(2)
        spread = sound.var(2, unbiased=False).add(1e-4).sqrt()
        return self.join(torch.cat([sound.mean(2), spread, learned], 2))


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
        self.register_buffer("codebooks", codebooks.clone())
        self.columns = ColumnEncoder(mean, deviation, hidden=code_width, width=width)

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        """Encode (B, W, Q, C) int16 to (B, W, width)."""
        vectors = torch.stack(
            [book[audio[:, :, number].long()] for number, book in enumerate(self.codebooks)]
        ).sum(0)  # (B, W, C, dimensions)
        return torch.as_tensor(self.columns(vectors.transpose(2, 3)))


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
