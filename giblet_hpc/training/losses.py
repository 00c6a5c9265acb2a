"""The errors of predicted scans and of reconstructions, and their weighted sum."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from giblet_hpc.config.loss import Loss
from giblet_hpc.modalities.base import Modality, scale
from giblet_hpc.models.shapes import Batch, Output, Positions
from giblet_hpc.training.global_sums import ALONE, GlobalSums, pearson_over_time


class Losses:
    """Computes the components of the loss, each already weighted.

    Parameters
    ----------
    options : Loss
    modalities : mapping of str to Modality
        Bound to the estimates that their errors are divided by.
    bold_variance : float
        Training-set variance that the scans' error is divided by.
    """

    def __init__(
        self, options: Loss, modalities: Mapping[str, Modality], bold_variance: float
    ) -> None:
        self._options = options
        self._modalities = {n: kind for n, kind in modalities.items() if kind.reconstructed}
        self._variance = bold_variance
        each = {name: options.modality_weights.get(name, 1.0) for name in self._modalities}
        self.weights = {
            "fmri": options.fmri_weight,
            **{name: options.reconstruction_weight * weight for name, weight in each.items()},
        }
        """Of each component, in the order of `components`."""

    def components(
        self, output: Output, batch: Batch, positions: Positions, sums: GlobalSums = ALONE
    ) -> dict[str, torch.Tensor]:
        """Return the weighted components, scalars; their sum is what training minimises.

        Their means over ranks do not depend on how the batch is divided among the ranks.

        Parameters
        ----------
        output : Output
        batch : Batch
        positions : mapping of str to Tensor
            Where in a TR ``output`` holds reconstructions, for modalities with positions.
        sums : GlobalSums
            Over the ranks that share the batch.
        """
        options = self._options
        target = batch.bold.shape[1]
        mask = batch.inside[:, -target:]
        scans, trs = sums.shares(batch.valid.sum(), mask.sum())
        found = {"fmri": self.weights["fmri"] * self._fmri(output.bold, batch, scans, sums)}
        for name, modality in self._modalities.items():
            error = modality.loss(
                output.reconstruction[name],
                batch.stimulus[name][:, -target:],
                mask,
                positions=positions.get(name),
                normalise=options.normalise,
            )
            found[name] = self.weights[name] * trs * error
        if options.map_penalty:
            # In the units of the scans' error: of the features' variance, over the scans'.
            found["map"] = options.map_penalty * (output.map_penalty / self._variance)
        return found

    def _fmri(
        self, predicted: torch.Tensor, batch: Batch, share: torch.Tensor, sums: GlobalSums
    ) -> torch.Tensor:
        predicted = predicted.to(batch.bold.dtype)
        weight = batch.valid[..., None].to(batch.bold.dtype)
        count = weight.sum().clamp(min=1) * batch.bold.shape[-1]
        difference = (predicted - batch.bold) * weight
        if self._options.fmri == "correlation":
            return self._uncorrelated(predicted, batch, sums)
        if self._options.fmri == "mae":
            error = difference.abs().sum() / count
            normalised = self._options.normalise != "none"
            error = error / self._variance**0.5 if normalised else error
        else:
            divisor = scale(self._variance, self._options.normalise)
            error = difference.square().sum() / count / divisor
        error = share * error
        if correlated := self._options.correlation_weight:
            error = error + correlated * self._uncorrelated(predicted, batch, sums)
        return error

    @staticmethod
    def _uncorrelated(predicted: torch.Tensor, batch: Batch, sums: GlobalSums) -> torch.Tensor:
        expanded = predicted.expand_as(batch.bold)
        r = pearson_over_time(
            expanded.flatten(0, 1), batch.bold.flatten(0, 1), batch.valid.flatten(0, 1), sums=sums
        )
        return 1 - r.mean()
