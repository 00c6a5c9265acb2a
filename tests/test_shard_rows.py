"""Single rows of a store: the values that zarr reads, and nothing that is damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from giblet_hpc.arrays import ArraySpec
from giblet_hpc.errors import StoreError
from giblet_hpc.shard_rows import ShardRows
from giblet_hpc.store import FeatureStore

SPEC = ArraySpec("bold/01/run1", (23, 5, 3), "float32", {"made": "x"}, max_shard_rows=4)
VALUES = np.random.default_rng(0).standard_normal(SPEC.shape).astype(np.float32)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    made = FeatureStore(tmp_path_factory.mktemp("store") / "s.zarr")
    made.plan([SPEC])
    made.write(SPEC, VALUES)
    return made


@given(bounds=st.tuples(st.integers(0, 23), st.integers(0, 23)).map(sorted))
def test_any_rows_across_shards(store: FeatureStore, bounds: list[int]) -> None:
    start, stop = bounds
    out = np.empty((stop - start, 5, 3), np.float32)
    store.rows(SPEC.name).read(start, out)
    np.testing.assert_array_equal(out, VALUES[start:stop])


def test_rows_that_zarr_wrote_in_another_order(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "s.zarr")
    store.plan([SPEC])
    store.write(SPEC, VALUES)
    zarr.open_array(store.path, path=SPEC.name, mode="r+")[:4] = VALUES[:4][::-1]
    rows = store.rows(SPEC.name)
    out = np.empty((4, 5, 3), np.float32)
    rows.read(0, out)
    np.testing.assert_array_equal(out, VALUES[:4][::-1])


@pytest.mark.parametrize("where", [10, 70, -3, -40])
def test_a_flipped_bit_is_found(tmp_path: Path, where: int) -> None:
    store = FeatureStore(tmp_path / "s.zarr")
    store.plan([SPEC])
    store.write(SPEC, VALUES)
    file = store.path / SPEC.name / "c.1.0.0"
    content = bytearray(file.read_bytes())
    content[where] ^= 4
    file.write_bytes(content)
    with pytest.raises(StoreError, match=r"c\.1\.0\.0: (row \d+|its index) is damaged"):
        store.rows(SPEC.name).read(4, np.empty((4, 5, 3), np.float32))


def test_a_file_that_goes_meanwhile(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "s.zarr")
    store.plan([SPEC])
    store.write(SPEC, VALUES)
    rows = store.rows(SPEC.name)
    assert isinstance(rows, ShardRows)
    (store.path / SPEC.name / "c.2.0.0").unlink()
    with pytest.raises(StoreError, match="No such file"):
        rows.read(8, np.empty((1, 5, 3), np.float32))
    with pytest.raises(StoreError, match="shard 2: file is gone"):
        store.rows(SPEC.name)
