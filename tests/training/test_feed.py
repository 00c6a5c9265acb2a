from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from giblet_hpc.arrays import ArraySpec
from giblet_hpc.errors import StoreError
from giblet_hpc.store import FeatureStore
from giblet_hpc.training.feed import (
    _require_unchanged,
    unshifted,
)

CPU = torch.device("cpu")


def test_values_that_were_changed_since_preprocess_are_refused(tmp_path: Path) -> None:
    spec = ArraySpec("mask", (4,), "uint8", {"made": "x"})
    store = FeatureStore(tmp_path / "s.zarr")
    store.plan([spec])
    store.write(spec, np.arange(4, dtype=np.uint8))
    inputs = {"arrays": {"mask": spec.fingerprint}, "content": {"mask": store.content("mask")}}
    _require_unchanged(store, inputs)
    store.write_shard(spec, 0, np.ones(4, np.uint8))
    assert store.verify() == []
    with pytest.raises(StoreError, match="`mask` holds other values than when this run's"):
        _require_unchanged(store, inputs)


@given(st.integers(0, 6), st.integers(10, 20))
def test_undoing_a_shift(shift: int, trs: int) -> None:
    truth = np.random.default_rng(trs).standard_normal((1, trs + shift, 3)).astype(np.float32)
    file = truth[:, shift:]
    bold, valid = unshifted(file, np.ones((1, trs), bool), shift)
    assert valid.sum() == trs - shift
    np.testing.assert_array_equal(bold[0, shift:], truth[0, shift:trs])
