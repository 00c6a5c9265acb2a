"""From the bottleneck's time course to voxels: low-rank components, each with its own response."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from giblet_hpc.config.model import TemporalModel
from giblet_hpc.timing import canonical_hrf


class CausalResponse(nn.Module):
    """A causal FIR filter for each component (depthwise convolution over past TRs).

    Parameters
    ----------
    components : int
    trs : int
        Lags, from 0 to ``trs - 1``.
    tr : float
        Seconds.
    learned : bool
        Whether training changes the filters. They start at the canonical response, scaled to
        unit energy.
    """

    taps: torch.Tensor

    def __init__(self, components: int, *, trs: int, tr: float, learned: bool) -> None:
        super().__init__()
        kernel = torch.tensor(canonical_hrf(tr=tr, trs=trs), dtype=torch.float32)
        taps = (kernel / kernel.norm()).repeat(components, 1)  # (components, trs), lag 0 first
        if learned:
            self.taps = nn.Parameter(taps)
        else:
            self.register_buffer("taps", taps)

    def forward(self, courses: torch.Tensor) -> torch.Tensor:
        """Filter (B, W, components) over W; time before the window counts as zero."""
        lags = self.taps.shape[1]
        padded = functional.pad(courses.transpose(1, 2), (lags - 1, 0))  # (B, components, W+lags-1)
        weight = self.taps.flip(1)[:, None, :].to(courses.dtype)
        return functional.conv1d(padded, weight, groups=weight.shape[0]).transpose(1, 2)


class VoxelHead(nn.Module):
    """Shared components for all voxels, and a few of each subject's own.

    Parameters
    ----------
    bottleneck : int
    subjects, voxels : int
    options : TemporalModel
        Ranks, lags, dropout.
    tr : float
        Seconds.
    """

    def __init__(
        self, bottleneck: int, *, subjects: int, voxels: int, options: TemporalModel, tr: float
    ) -> None:
        super().__init__()
        self.rank = options.rank
        self.subject_rank = options.subject_rank if subjects > 1 else 0
        self.subjects = subjects
        components = self.rank + subjects * self.subject_rank
        self.project = nn.Linear(bottleneck, components)
        self.dropout = nn.Dropout(options.dropout)
        self.response = CausalResponse(
            components, trs=options.fir_trs(tr), tr=tr, learned=options.hrf == "learned"
        )
        self.shared = nn.Linear(self.rank, voxels)
        if self.subject_rank:
            # Starts at zero: subjects differ only where the data say so.
            self.own = nn.Parameter(torch.zeros(subjects, self.subject_rank, voxels))

    def map_penalty(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the mean over voxels of the squared weights of an end-to-end linear map.

        The map's weight from feature d at lag k to voxel v is ``sum_r O[v, r] F[r, k] M[r, d]``,
        with O the shared read-out, F the filters and M the features' map to components. Its
        squared norm needs only matrices of components by components.

        Parameters
        ----------
        inputs : Tensor, (Z, features)
            Linear map from the features to the bottleneck.
        """
        mapped = (self.project.weight @ inputs)[: self.rank]  # (rank, features)
        taps = self.response.taps[: self.rank]
        read = self.shared.weight  # (V, rank)
        gram = (read.T @ read) * (taps @ taps.T) * (mapped @ mapped.T)
        return gram.sum() / read.shape[0]

    def forward(self, bottleneck: torch.Tensor, inside: torch.Tensor, target: int) -> torch.Tensor:
        """Predict the last ``target`` TRs.

        Parameters
        ----------
        bottleneck : Tensor, (B, W, Z)
        inside : Tensor, (B, W) bool
        target : int
            L.

        Returns
        -------
        Tensor, (B, L, S, V)
        """
        components = self.dropout(self.project(bottleneck)) * inside[..., None]
        responses = self.response(components)[:, -target:]  # (B, L, components)
        shared = self.shared(responses[..., : self.rank])[:, :, None, :]
        if not self.subject_rank:
            return shared.expand(-1, -1, self.subjects, -1)
        own = responses[..., self.rank :].unflatten(2, (self.subjects, self.subject_rank))
        return shared + torch.einsum("blsr,srv->blsv", own, self.own.to(own.dtype))
