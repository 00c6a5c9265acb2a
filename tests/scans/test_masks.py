"""Masks: votes of scans, given files; and regions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from giblet_hpc.config.bold import Bold
from giblet_hpc.errors import DataError
from giblet_hpc.scans import masks
from giblet_hpc.scans.tables import Columns
from giblet_hpc.scans.volumes import Grid

RANDOM = np.random.default_rng(0)


def test_vote_follows_the_temporal_deviation() -> None:
    rows = np.zeros((50, 4, 4, 4), np.float32)
    rows[:, 1:3, 1:3, 1:3] = 5 * RANDOM.standard_normal((50, 2, 2, 2))
    rows[:, 0, 0, 0] = 0.01 * RANDOM.standard_normal(50)
    mask = masks.vote_mask(rows, Bold())
    assert mask.sum() == 8
    assert mask[1:3, 1:3, 1:3].all()
    with pytest.raises(DataError, match="no target varies"):
        masks.vote_mask(np.ones((9, 2, 2, 2), np.float32), Bold())


def test_all_that_vary_where_there_is_no_air() -> None:
    rows = RANDOM.standard_normal((20, 6)).astype(np.float32)
    rows[:, 1] = 3
    rows[4, 2] = np.nan
    assert masks.varying_mask(rows, Bold()).tolist() == [True, False, False, True, True, True]
    with pytest.raises(DataError, match="no target varies"):
        masks.varying_mask(np.ones((9, 4), np.float32), Bold())


def test_who_votes_depends_on_the_kind_of_scans() -> None:
    volume = Grid((2, 2, 2), tuple(map(tuple, np.eye(4).tolist())))
    assert masks.voting(Bold(), volume) == "vote"
    assert masks.voting(Bold(), Columns(5)) == "varying"
    assert masks.voting(Bold(mask="varying"), volume) == "varying"
    assert masks.voting(Bold(mask="mask.nii.gz"), volume) == ""


def test_names_of_regions(tmp_path: Path) -> None:
    path = tmp_path / "names.tsv"
    path.write_text("label\tname\n1\tV1\n2\tA1\n")
    assert masks.region_names(path) == {"1": "V1", "2": "A1"}
    path.write_text(path.read_text().replace("label", "index"))
    assert masks.region_names(path) == {"1": "V1", "2": "A1"}
    path.write_text("id\tname\n1\tV1\n")
    with pytest.raises(DataError, match=r"needs the columns label \(or index\) and name"):
        masks.region_names(path)
    path.write_bytes(b"\xff\xfe\x00\x00")
    with pytest.raises(DataError, match="cannot be read as a table of regions"):
        masks.region_names(path)
