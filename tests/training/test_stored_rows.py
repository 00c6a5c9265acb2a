"""A study that stays in its store gives the batches that it gives from memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from giblet_hpc.arrays import ArraySpec
from giblet_hpc.store import FeatureStore
from giblet_hpc.training.feed import RunArrays, load_study
from giblet_hpc.training.node_memory import PrivateMemory
from giblet_hpc.training.stored_rows import StoredScans

TRS, VOXELS, SUBJECTS = 17, 6, ("01", "02", "03")
SCANS = np.random.default_rng(1).standard_normal((3, TRS, VOXELS)).astype(np.float32)
VALID = np.ones((3, TRS), np.uint8)
VALID[1, 12:] = 0


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    made = FeatureStore(tmp_path_factory.mktemp("store") / "s.zarr")
    arrays = {
        "mask": np.ones((1, 1, VOXELS), np.uint8),
        "stimulus/run1/text": np.random.default_rng(2).random((TRS, 4)).astype(np.float32),
        **{f"bold/{s}/run1": SCANS[n] * VALID[n][:, None] for n, s in enumerate(SUBJECTS)},
        **{f"valid/{s}/run1": VALID[n] for n, s in enumerate(SUBJECTS)},
    }
    specs = {
        name: ArraySpec(name, values.shape, str(values.dtype), {"made": "x"},
                        {"kind": "volume", "affine": np.eye(4).tolist()}, max_shard_rows=5)
        for name, values in arrays.items()
    }  # fmt: skip
    made.plan(specs.values())
    for name, values in arrays.items():
        made.write(specs[name], values)
    return made


def read(store: FeatureStore, memory: PrivateMemory | None, mode: str, shift: int) -> RunArrays:
    run = SimpleNamespace(name="run1")
    config: Any = SimpleNamespace(
        study=SimpleNamespace(store=store.path, runs=[run]),
        bold=SimpleNamespace(mode=mode, shifted_trs=shift),
        features=SimpleNamespace(modalities={"text": None}),
    )
    inputs = {"subjects": SUBJECTS, "arrays": {}, "content": {}}
    return load_study(config, inputs, memory=memory).runs["run1"]


@pytest.mark.parametrize("mode", ["per_subject", "cross_subject"])
@pytest.mark.parametrize("shift", [0, 3, 20])
def test_it_reads_as_from_memory(store: FeatureStore, mode: str, shift: int) -> None:
    if shift > TRS:
        shift = TRS - 1
    whole = read(store, PrivateMemory(), mode, shift)
    rows = read(store, None, mode, shift)
    assert isinstance(rows.bold, StoredScans)
    assert (rows.bold.shape, rows.bold.dtype) == (whole.bold.shape, whole.bold.dtype)
    np.testing.assert_array_equal(rows.valid, whole.valid)
    np.testing.assert_array_equal(rows.stimulus["text"][2:9], whole.stimulus["text"][2:9])
    np.testing.assert_array_equal(np.asarray(rows.stimulus["text"]), whole.stimulus["text"])
    for start, stop in ((0, TRS), (0, 2), (2, 11), (15, TRS), (4, 4)):
        np.testing.assert_array_equal(rows.bold[:, start:stop], whole.bold[:, start:stop])
        np.testing.assert_array_equal(rows.bold[0, start:stop], whole.bold[0, start:stop])
        chosen = slice(1, 4)
        np.testing.assert_array_equal(
            rows.bold[:, start:stop, chosen], whole.bold[:, start:stop, chosen]
        )


@given(st.integers(0, TRS), st.integers(0, TRS), st.integers(0, 5))
def test_scans_before_the_first_are_zero(store: FeatureStore, a: int, b: int, shift: int) -> None:
    start, stop = sorted((a, b))
    scans = StoredScans(store, ["01"], "run1", shift=shift, counts=None)
    expected = np.concatenate([np.zeros((shift, VOXELS), np.float32), SCANS[0]])[start:stop]
    np.testing.assert_array_equal(scans[0, start:stop], expected)
