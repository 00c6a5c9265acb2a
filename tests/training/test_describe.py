from __future__ import annotations

from giblet_hpc.training.describe import describe


def test_layers_and_counts_without_memory() -> None:
    lines = describe(1, 100).splitlines()
    assert lines[0] == "dense model: 1 frames of 90 x 160, 100 voxels"
    counts = [int(line.split()[-1].replace(",", "")) for line in lines[1:]]
    assert counts[-1] == counts[-2] + counts[-3], "the whole is its encoder and its decoder"
    assert sum(counts[:-3]) == counts[-1], "and nothing but what is listed"
