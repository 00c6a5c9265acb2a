from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from giblet_hpc.arrays import ArraySpec
from giblet_hpc.cli import store as commands
from giblet_hpc.store import FeatureStore
from tests.cli.conftest import Invoke

SPEC = ArraySpec("mask", (6, 2), "uint8", {"from": "a test"}, max_shard_rows=3)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    store = FeatureStore(tmp_path / "s.zarr")
    store.plan([SPEC])
    store.write_shard(SPEC, 0, np.ones((3, 2), np.uint8))
    return store


def test_what_is_in_a_store(store: FeatureStore, invoke: Invoke) -> None:
    (row,) = json.loads(invoke("store", "info", "s.zarr", "--json").stdout)
    assert (row["array"], row["shards"], row["committed"]) == ("mask", 2, 1)
    assert "mask" in invoke("store", "info", "s.zarr").stdout
    assert set(commands.store.commands) == {"info", "verify", "gc"}


def test_what_is_wrong_with_a_store(store: FeatureStore, invoke: Invoke) -> None:
    done = invoke("store", "verify", "s.zarr", code=1)
    assert "mask shard 1: not written" in done.output
    store.write(SPEC, np.ones((6, 2), np.uint8))
    assert invoke("store", "verify", "s.zarr").stdout == "all shards are good\n"
    assert "is not a feature store" in invoke("store", "info", ".", code=2).stderr


def test_what_killed_writers_left(store: FeatureStore, invoke: Invoke) -> None:
    (store.path / ".tmp-1").write_text("x")
    assert invoke("store", "gc", "s.zarr").stdout == ""
    assert ".tmp-1" in invoke("store", "gc", "s.zarr", "--older-than", "0").stdout
