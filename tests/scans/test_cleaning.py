"""Which TRs hold scans; filters and z-scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nilearn.signal import clean as nilearn_clean

from giblet_hpc.config.bold import Bold
from giblet_hpc.scans import cleaning

RANDOM = np.random.default_rng(0)


@given(st.integers(5, 30), st.integers(1, 8), st.integers(0, 2**31))
def test_standardise_and_restore(trs: int, voxels: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    courses = (800 + 10 * random.standard_normal((trs, voxels))).astype(np.float32)
    courses[:, 0] = 812.5
    zscored, statistics = cleaning.standardise(courses)
    assert not zscored[:, 0].any()
    assert statistics[1, 0] == 1
    np.testing.assert_allclose(zscored[:, 1:].std(0), 1, atol=1e-3)
    np.testing.assert_allclose(cleaning.restore(zscored, statistics), courses, rtol=1e-4)


@given(st.integers(8, 40), st.integers(0, 5), st.booleans())
def test_cut_and_constant_ends_are_found(trs: int, missing: int, filled: bool) -> None:
    courses = np.random.default_rng(trs).standard_normal((trs, 4)).astype(np.float32)
    courses[:, 2] = 7
    expected = np.arange(trs) < trs - missing
    if filled and missing > 1:
        courses[trs - missing :] = courses[trs - missing]
        # The first of the repeated scans cannot be told from data.
        found = cleaning.valid_rows(courses, trs)
        assert found.sum() in (expected.sum(), expected.sum() + 1)
        assert not found[trs - missing + 1 :].any()
    else:
        found = cleaning.valid_rows(courses[expected], trs)
        np.testing.assert_array_equal(found, expected)
    assert not cleaning.valid_rows(np.ones((9, 3), np.float32), 9).any()


@given(st.sets(st.integers(0, 19), max_size=6))
def test_one_value_everywhere_is_no_scan_wherever_it_is(empty: set[int]) -> None:
    courses = np.random.default_rng(1).standard_normal((20, 6)).astype(np.float32)
    courses[sorted(empty)] = 0
    found = cleaning.valid_rows(courses, 20)
    assert set(np.flatnonzero(~found)) == empty


def test_cleaning_equals_nilearn_and_keeps_the_mean() -> None:
    courses = (100 + np.linspace(0, 20, 80)[:, None] + RANDOM.standard_normal((80, 5))).astype(
        np.float32
    )
    regressors = RANDOM.standard_normal((80, 2)).astype(np.float32)
    options = Bold(detrend=True, high_pass=0.01)
    valid = np.ones(80, bool)
    made = cleaning.clean(courses, bold=options, tr=1.5, regressors=regressors, valid=valid)
    expected = nilearn_clean(
        courses, detrend=True, standardize=None, filter="cosine", high_pass=0.01, t_r=1.5,
        confounds=regressors,
    )  # fmt: skip
    np.testing.assert_allclose(made - courses.mean(0), expected, atol=2e-2)
    same = cleaning.clean(courses, bold=Bold(), tr=1.5, regressors=None, valid=valid)
    np.testing.assert_array_equal(same, courses)


def test_scans_that_are_left_out_do_not_touch_the_others() -> None:
    courses = (100 + RANDOM.standard_normal((80, 5))).astype(np.float32)
    valid = np.ones(80, bool)
    valid[[7, 30, 31]] = False
    options = Bold(detrend=True, high_pass=0.01)
    made = cleaning.clean(courses, bold=options, tr=1.5, regressors=None, valid=valid)
    courses[~valid] = 1e6
    again = cleaning.clean(courses, bold=options, tr=1.5, regressors=None, valid=valid)
    assert made.shape == (77, 5)
    np.testing.assert_array_equal(made, again)


@pytest.mark.parametrize(("own", "tr"), [(2.0, 1.5), (1.0, 1.5), (1.5, 1.5), (1.5, 1.0)])
def test_scans_come_to_another_tr(own: float, tr: float) -> None:
    """A slow course, sampled at the middles of scans, is the same course at the middles of TRs."""
    scans = 60
    seconds = (np.arange(scans) + 0.5) * own
    trs = int(scans * own / tr)
    slow = np.stack([np.sin(seconds / 9), seconds / 50], axis=1).astype(np.float32)
    valid = np.ones(scans, bool)
    found, there = cleaning.at_rate(slow, valid, trs, own=own, tr=tr)
    wanted = (np.arange(trs) + 0.5) * tr
    inner = (wanted > own) & (wanted < seconds[-1])
    expected = np.stack([np.sin(wanted / 9), wanted / 50], axis=1)
    np.testing.assert_allclose(found[inner], expected[inner], atol=0.02)
    assert there.all()
    valid[20] = False
    _, there = cleaning.at_rate(slow, valid, trs, own=own, tr=tr)
    lost = np.abs(wanted[~there] - seconds[20])
    assert (lost < own).all()
    assert len(lost) >= 1
