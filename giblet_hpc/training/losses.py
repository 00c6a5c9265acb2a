"""The errors of predicted scans and of reconstructions, and their weighted sum."""

from __future__ import annotations

import torch
from torch.nn import functional

from giblet_hpc.config import Loss
from giblet_hpc.models.shapes import Batch, Output, Shapes
from giblet_hpc.training.fitted import Fitted

SMALL = 1e-8


def pearson_over_time(
    predicted: torch.Tensor, measured: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """Correlate each voxel's prediction with its scans over time.

    Parameters
    ----------
    predicted, measured : Tensor, (T, S, V)
    valid : Tensor, (T, S) bool

    Returns
    -------
    Tensor, (S, V)
        0 where either is constant.
    """
    weight = valid[..., None].to(measured.dtype)
    count = weight.sum(0).clamp(min=1)
    a = (predicted - (predicted * weight).sum(0) / count) * weight
    b = (measured - (measured * weight).sum(0) / count) * weight
    return (a * b).sum(0) / ((a * a).sum(0) * (b * b).sum(0) + SMALL).sqrt()


class Losses:
    """Computes the components of the loss, each already weighted.

    Parameters
    ----------
    options : Loss
    shapes : Shapes
    fitted : Fitted
        Training-set variances that errors are divided by.
    """

    def __init__(self, options: Loss, shapes: Shapes, fitted: Fitted) -> None:
        self._options = options
        self._shapes = shapes
        self._fitted = fitted
        self._weights = {
            "fmri": options.fmri_weight,
            "map": options.map_penalty,
            **{
                name: options.reconstruction_weight * getattr(options, f"{name}_weight")
                for name in shapes.modalities
            },
        }

    def components(
        self, output: Output, batch: Batch, audio_frames: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return the weighted components, scalars; their sum is what training minimises.

        Parameters
        ----------
        output : Output
        batch : Batch
        audio_frames : Tensor, (n,) int64
            Frames at which ``output`` holds logits of audio codes.
        """
        parts = {"fmri": self._fmri(output.bold, batch)}
        parts |= self.reconstruction_errors(output, batch, audio_frames)
        if self._options.map_penalty:
            # In the units of the scans' error: of the features' variance, over the scans'.
            parts["map"] = output.map_penalty / self._fitted.scalar("bold_variance")
        return {name: self._weights[name] * value for name, value in parts.items()}

    def reconstruction_errors(
        self, output: Output, batch: Batch, audio_frames: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return each modality's reconstruction error before weighting, scalars."""
        target = batch.bold.shape[1]
        there = batch.inside[:, -target:]
        return {
            name: self._reconstruction(
                name,
                output.reconstruction[name],
                batch.stimulus[name][:, -target:],
                there,
                audio_frames,
            )
            for name in self._shapes.modalities
        }

    def _scale(self, variance: float) -> float:
        if self._options.normalise == "variance":
            return variance
        return variance**0.5 if self._options.normalise == "std" else 1.0

    def _fmri(self, predicted: torch.Tensor, batch: Batch) -> torch.Tensor:
        predicted = predicted.float()
        variance = self._fitted.scalar("bold_variance")
        weight = batch.valid[..., None].float()
        count = weight.sum().clamp(min=1) * batch.bold.shape[-1]
        difference = (predicted - batch.bold) * weight
        if self._options.fmri == "correlation":
            return self._uncorrelated(predicted, batch)
        if self._options.fmri == "mae":
            error = difference.abs().sum() / count
            normalised = self._options.normalise != "none"
            error = error / variance**0.5 if normalised else error
        else:
            error = difference.square().sum() / count / self._scale(variance)
        if self._options.correlation_weight:
            error = error + self._options.correlation_weight * self._uncorrelated(predicted, batch)
        return error

    @staticmethod
    def _uncorrelated(predicted: torch.Tensor, batch: Batch) -> torch.Tensor:
        expanded = predicted.expand_as(batch.bold)
        r = pearson_over_time(
            expanded.flatten(0, 1), batch.bold.flatten(0, 1), batch.valid.flatten(0, 1)
        )
        return 1 - r.mean()

    def _reconstruction(
        self,
        name: str,
        made: torch.Tensor,
        wanted: torch.Tensor,
        there: torch.Tensor,
        audio_frames: torch.Tensor,
    ) -> torch.Tensor:
        if name == "audio" and self._shapes.codes and made.dim() == 5:
            return self._codes(made, wanted[..., audio_frames], there)
        if name == "video":
            wanted = wanted[:, :, : made.shape[2]].float() / 255
        error = (made.float() - wanted.float()).square().flatten(2).mean(2)
        mean = (error * there).sum() / there.sum().clamp(min=1)
        return mean / self._scale(self._fitted.scalar(f"{name}_variance"))

    def _codes(
        self, logits: torch.Tensor, codes: torch.Tensor, there: torch.Tensor
    ) -> torch.Tensor:
        """Cross-entropy of (B, L, n, Q, codes) against (B, L, Q, n)."""
        wanted = codes.transpose(2, 3).long()  # (B, L, n, Q)
        kept = logits[there].float().flatten(0, 2)
        cost = functional.cross_entropy(kept, wanted[there].flatten())
        if self._options.normalise == "none":
            return cost
        return cost / self._fitted.scalar("audio_entropy")


def gradient_norms(
    parts: dict[str, torch.Tensor], bottleneck: torch.Tensor
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the norm of each loss component's gradient at the bottleneck, and its share in all.

    Parameters
    ----------
    parts : dict of str to Tensor
        Scalar loss components; those without a gradient are left out.
    bottleneck : Tensor
        What all of them are computed from.
    """
    norms = {}
    for name, part in parts.items():
        if not part.requires_grad:
            continue
        found = torch.autograd.grad(part, bottleneck, retain_graph=True, allow_unused=True)[0]
        norms[name] = 0.0 if found is None else float(found.float().norm())
    total = sum(norms.values()) or 1.0
    return norms, {name: value / total for name, value in norms.items()}
