"""How the components of the loss are weighted against each other while training goes on.

Factors follow from the components' gradients at the bottleneck, which both scans and
reconstructions are computed from, or from the components themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from giblet_hpc.config.loss import Loss
from giblet_hpc.training.global_sums import GlobalSums

MEMORY = 0.98
"""Of the running averages, a step."""
SMALLEST = 1e-12


class Balance(nn.Module):
    """Factors of the components; running averages are its state, the same on all ranks.

    ``gradient``: each component's gradient at the bottleneck gets the share that its weight has
    among all weights (the balancer of Défossez et al. 2022, arXiv:2210.13438, part 3.4).
    ``uncertainty``: each component is divided by twice its running average, the optimum of the
    learned weights of Kendall et al. 2018 (Kirchdorfer et al. 2024, arXiv:2408.07985).

    Parameters
    ----------
    options : Loss
    weights : mapping of str to float
        Of the components that are balanced.
    """

    average: torch.Tensor
    steps: torch.Tensor

    def __init__(self, options: Loss, weights: Mapping[str, float]) -> None:
        super().__init__()
        self._kind, self._limit = options.balance, options.component_clip
        self._weights = {name: weight for name, weight in weights.items() if weight > 0}
        self.register_buffer("average", torch.zeros(len(self._weights), dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @property
    def needs_norms(self) -> bool:
        """Whether factors follow from the gradients at the bottleneck."""
        return self._kind == "gradient" or self._limit is not None

    @torch.no_grad()
    def forward(
        self,
        components: Mapping[str, torch.Tensor],
        norms: Mapping[str, torch.Tensor],
        sums: GlobalSums,
    ) -> dict[str, torch.Tensor]:
        """Return each component's factor, and take this step into the averages.

        Parameters
        ----------
        components : mapping of str to Tensor
            Weighted, scalars.
        norms : mapping of str to Tensor
            Of their gradients at the bottleneck; empty where `needs_norms` is false.
        sums : GlobalSums
            Over the ranks that share the batch: all get the same factors.
        """
        names = list(self._weights)
        weights = self.average.new_tensor(list(self._weights.values()))
        factors = torch.ones_like(weights)
        if self._kind != "fixed":
            source = norms if self._kind == "gradient" else components
            average = self._remember(_over_ranks(source, names, sums) / weights)
            if self._kind == "gradient":
                factors = (weights * average).sum() / weights.sum() / average
            else:
                factors = 1 / (2 * average)
        if self._limit is not None:
            found = _over_ranks(norms, names, sums) * factors
            factors = factors * (self._limit / found.clamp(min=SMALLEST)).clamp(max=1)
        return dict(zip(names, factors.float(), strict=True))

    def _remember(self, values: torch.Tensor) -> torch.Tensor:
        """Return the running averages, this step's values among them.

        A step that is not finite is skipped; its values would stay in the averages for good.
        """
        if bool(values.isfinite().all()):
            self.steps += 1
            self.average.lerp_(values, 1 - MEMORY)
        if not int(self.steps):
            return torch.ones_like(self.average)
        return (self.average / (1 - MEMORY ** int(self.steps))).clamp(min=SMALLEST)


def _over_ranks(
    values: Mapping[str, torch.Tensor], names: list[str], sums: GlobalSums
) -> torch.Tensor:
    """Return the means over ranks of some values, (n,)."""
    own = torch.stack([values[name].detach().double() for name in names])
    return sums.reduce(own) / sums.size


def gradient_norms(
    components: Mapping[str, torch.Tensor], bottleneck: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return the norm of each loss component's gradient at the bottleneck.

    Parameters
    ----------
    components : mapping of str to Tensor
        Scalar loss components; those without a gradient are left out.
    bottleneck : Tensor
        What all of them are computed from.
    """
    norms = {}
    for name, component in components.items():
        if not component.requires_grad:
            continue
        found = torch.autograd.grad(component, bottleneck, retain_graph=True, allow_unused=True)[0]
        norms[name] = torch.zeros_like(component) if found is None else found.float().norm()
    return norms
