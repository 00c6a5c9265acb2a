"""What all kinds of scans share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from giblet_hpc.scans import base
from giblet_hpc.scans.tables import Columns


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(0, 2**16))
def test_pieces_are_the_targets_of_each_stretch(sizes: list[int], seed: int) -> None:
    mask = np.random.default_rng(seed).random(sum(sizes)) > 0.5
    targets = np.flatnonzero(mask)
    found = [targets[piece] for piece in base.mask_pieces(mask, sizes)]
    ends = np.cumsum([0, *sizes])
    for own, low, high in zip(found, ends, ends[1:], strict=False):
        np.testing.assert_array_equal(own, targets[(targets >= low) & (targets < high)])


@pytest.mark.parametrize(("length", "count"), [(10, 3), (3, 10), (1, 1), (7, 7)])
def test_a_spread_goes_from_the_first_to_the_last(length: int, count: int) -> None:
    found = base.spread(length, count)
    assert found[0] == 0
    assert found[-1] == length - 1
    assert len(found) == min(length, count)


def test_whole_puts_values_where_the_mask_is() -> None:
    mask = np.array([True, False, True])
    whole = Columns(3).whole(np.array([[1.0, 2.0], [3.0, 4.0]]), mask, outside=-1)
    np.testing.assert_array_equal(whole, [[1, -1, 2], [3, -1, 4]])
