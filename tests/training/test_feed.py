from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from giblet_hpc.arrays import ArraySpec
from giblet_hpc.errors import StoreError
from giblet_hpc.splits import Block
from giblet_hpc.store import FeatureStore
from giblet_hpc.training.feed import (
    RunArrays,
    StudyArrays,
    Window,
    WindowReader,
    _require_unchanged,
    unshifted,
)

CPU = torch.device("cpu")


def test_windows_hold_the_right_trs_and_nothing_from_outside_their_block() -> None:
    course = np.arange(50, dtype=np.float32)
    run = RunArrays(
        {"text": course[:, None]}, np.stack([course[:, None]] * 2), np.ones((2, 50), bool)
    )
    run.valid[1, 45:] = False
    study = StudyArrays({"a": run}, ("x", "y"), np.ones((1, 1, 1), bool), np.eye(4), {})
    reader = WindowReader(study, {"a": run.stimulus}, trs=8, context=3, device=CPU)
    batch = reader([Window(Block("a", 10, 30), 20), Window(Block("a", 10, 30), 11)])
    np.testing.assert_array_equal(batch.stimulus["text"][0, :, 0], np.arange(17, 28))
    np.testing.assert_array_equal(batch.bold[0, :, 0, 0], np.arange(20, 28))
    np.testing.assert_array_equal(batch.inside[1], [False, False] + [True] * 9)
    assert not batch.stimulus["text"][1, :2].any()
    batch = reader([Window(Block("a", 40, 50), 44)])
    np.testing.assert_array_equal(batch.valid[0, :, 0], [True] * 6 + [False] * 2)
    np.testing.assert_array_equal(batch.valid[0, :, 1], [True] + [False] * 7)


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
