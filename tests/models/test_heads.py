"""From the bottleneck to voxels."""

from __future__ import annotations

import numpy as np
import torch

from giblet_hpc.config.model import TemporalModel
from giblet_hpc.models.heads import CausalResponse, VoxelHead


def head(subjects: int) -> VoxelHead:
    torch.manual_seed(0)
    options = TemporalModel(rank=3, subject_rank=2, fir_seconds=6, dropout=0.0)
    return VoxelHead(5, subjects=subjects, voxels=7, options=options, tr=1.5)


def test_the_response_is_a_causal_convolution() -> None:
    response = CausalResponse(2, trs=5, tr=1.5, learned=True)
    with torch.no_grad():
        response.taps.copy_(torch.randn(2, 5))
    courses = torch.randn(1, 20, 2)
    filtered = response(courses).detach().numpy()
    for component in range(2):
        expected = np.convolve(courses[0, :, component], response.taps[component].detach())[:20]
        np.testing.assert_allclose(filtered[0, :, component], expected, atol=1e-5)
    assert not isinstance(CausalResponse(2, trs=5, tr=1.5, learned=False).taps, torch.nn.Parameter)
    np.testing.assert_allclose(response.taps.shape, (2, 5))


def test_subjects_start_alike_and_become_different() -> None:
    voxels = head(3)
    bottleneck, inside = torch.randn(2, 9, 5), torch.ones(2, 9, dtype=torch.bool)
    predicted = voxels(bottleneck, inside, 4)
    assert predicted.shape == (2, 4, 3, 7)
    assert torch.equal(predicted[:, :, 0], predicted[:, :, 2])
    with torch.no_grad():
        voxels.own.normal_()
    predicted = voxels(bottleneck, inside, 4)
    assert not torch.allclose(predicted[:, :, 0], predicted[:, :, 2])
    assert head(1).subject_rank == 0, "one subject has nothing of its own"


def test_trs_outside_count_as_nothing() -> None:
    voxels = head(1)
    bottleneck = torch.randn(1, 9, 5)
    inside = torch.ones(1, 9, dtype=torch.bool)
    inside[:, :5] = False
    other = bottleneck.clone()
    other[:, :5] = 100.0
    assert torch.equal(voxels(bottleneck, inside, 4), voxels(other, inside, 4))


def test_the_penalty_is_that_of_the_whole_linear_map() -> None:
    voxels = head(2)
    inputs = torch.randn(5, 11)
    projected = voxels.project.weight[:3] @ inputs  # (rank, features)
    taps, read = voxels.response.taps[:3], voxels.shared.weight
    whole = torch.einsum("vr,rk,rd->vkd", read, taps, projected)
    torch.testing.assert_close(voxels.map_penalty(inputs), whole.square().sum() / 7)
