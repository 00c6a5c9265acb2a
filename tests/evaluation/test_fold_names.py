"""Names of regions: one each, also where an atlas gives two the same."""

from __future__ import annotations

import numpy as np

from giblet_hpc.evaluation import scores
from giblet_hpc.evaluation.fold import distinct


def test_two_regions_of_one_name_stay_two() -> None:
    labels = np.array([0, 1, 1, 2, 3, 3, 7], np.int32)
    names = distinct(labels, {"1": "V1", "2": "V1", "3": "all voxels", "5": "absent"})
    assert names == {"1": "V1", "2": "V1 (2)", "3": "all voxels (3)", "7": "7"}
    members = scores.members_of(labels, names, 7)
    assert {name: int(own.sum()) for name, own in members.items()} == {
        "all voxels": 7, "V1": 2, "V1 (2)": 1, "all voxels (3)": 2, "7": 1,
    }  # fmt: skip
