from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from giblet_hpc import store as store_module
from giblet_hpc.arrays import ArraySpec
from giblet_hpc.errors import StoreError
from giblet_hpc.garbage import collect_garbage
from giblet_hpc.store import FeatureStore

PART = ArraySpec("stimulus/run1/video", (10, 2, 3), "uint8", {"film": "abc"}, max_shard_rows=4)
VALUES = np.arange(60, dtype=np.uint8).reshape(10, 2, 3)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    store = FeatureStore(tmp_path / "s.zarr")
    store.plan([PART])
    return store


def shard_files(store: FeatureStore) -> list[Path]:
    return sorted((store.path / PART.name).glob("c.*"))


def test_plain_zarr_reads_the_same_values(store: FeatureStore) -> None:
    store.write(PART, VALUES)
    np.testing.assert_array_equal(store.read(PART.name), VALUES)
    np.testing.assert_array_equal(zarr.open(store.path, mode="r")[PART.name][:], VALUES)
    array = zarr.open_array(store.path, path=PART.name, mode="r")
    assert array.chunks == (1, 2, 3)
    assert array.shards == (4, 2, 3)
    assert len(shard_files(store)) == PART.shards == 3


def test_only_missing_shards_are_written(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write_shard(PART, 1, VALUES[4:8])
    assert store.missing(PART) == [0, 2]
    written = []
    real = store.write_shard

    def spy(part: ArraySpec, shard: int, rows: np.ndarray) -> None:
        written.append(shard)
        real(part, shard, rows)

    monkeypatch.setattr(store, "write_shard", spy)
    store.write(PART, VALUES)
    assert written == [0, 2]


def test_incomplete_parts_are_not_read_as_zeros(store: FeatureStore) -> None:
    store.write_shard(PART, 0, VALUES[:4])
    with pytest.raises(StoreError, match="shard 1: not written"):
        store.read(PART.name)


@pytest.mark.parametrize("damage", ["flip", "truncate", "zero page", "missing"])
def test_every_damage_is_found_and_mended(store: FeatureStore, damage: str) -> None:
    store.write(PART, VALUES)
    file = shard_files(store)[-1]
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[3] ^= 4
        file.write_bytes(content)
    elif damage == "truncate":
        file.write_bytes(content[:-5])
    elif damage == "zero page":
        file.write_bytes(bytes(8) + content[8:])
    else:
        file.unlink()
    assert len(store.verify()) == 1
    assert store.missing(PART) == [2]
    with pytest.raises(StoreError, match="shard 2"):
        store.read(PART.name)
    store.write(PART, VALUES)
    assert store.verify() == []
    np.testing.assert_array_equal(store.read(PART.name), VALUES)


def test_other_settings_are_refused_by_name_and_rebuilt_on_request(store: FeatureStore) -> None:
    store.write(PART, VALUES)
    other = ArraySpec(PART.name, PART.shape, "uint8", {"film": "xyz"}, max_shard_rows=4)
    with pytest.raises(StoreError, match="film: 'abc' -> 'xyz'"):
        store.plan([other])
    np.testing.assert_array_equal(store.read(PART.name), VALUES)
    assert [row["because"] for row in store.summary()] == [[]]
    store.plan([other], rebuild=True)
    assert store.missing(other) == [0, 1, 2]
    assert [row["because"] for row in store.summary()] == [["film: 'abc' -> 'xyz'"]]


def test_read_back_of_other_values_is_an_error(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module.np, "array_equal", lambda *_, **__: False)
    with pytest.raises(StoreError, match="reads back other values"):
        store.write_shard(PART, 0, VALUES[:4])
    assert store.missing(PART) == [0, 1, 2]


def test_garbage_is_removed_only_when_old(store: FeatureStore) -> None:
    debris = store.path / PART.name / "abc.partial"
    debris.write_bytes(b"x")
    assert collect_garbage(store.path) == []
    assert collect_garbage(store.path, older_than=0) == [debris]


def test_garbage_that_is_a_link_leaves_what_it_leads_to(
    store: FeatureStore, tmp_path: Path
) -> None:
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "kept.partial").write_text("x")
    link = store.path / ".tmp-link"
    link.symlink_to(treasure)
    assert collect_garbage(store.path, older_than=0) == [link]
    assert (treasure / "kept.partial").is_file()


def exchange(store: FeatureStore, shard: int, values: NDArray[np.uint8]) -> None:
    """Put another shard into place, with a record that fits, as who can write to a store can."""
    other = FeatureStore(store.path.with_name(f"other-{values.sum()}.zarr"))
    other.plan([PART])
    other.write(PART, values)
    for path in (shard_files(other)[shard], other._commit_record(PART.name, shard)):
        shutil.copy(path, store.path / path.relative_to(other.path))


def test_an_exchanged_shard_with_its_record_shows_in_the_content(store: FeatureStore) -> None:
    store.write(PART, VALUES)
    before = store.content(PART.name)
    exchange(store, 1, VALUES)
    assert store.content(PART.name) == before, "the same values"
    exchange(store, 1, VALUES + 1)
    assert store.verify() == [], "nothing else notices"
    assert store.content(PART.name) != before


def test_another_description_shows_in_the_content(store: FeatureStore) -> None:
    store.write(PART, VALUES)
    before = store.content(PART.name)
    file = store.path / PART.name / "zarr.json"
    file.write_text(file.read_text().replace("uint8", "int8"))
    assert store.content(PART.name) != before


def test_an_array_of_the_old_format_is_not_read_in_its_place(store: FeatureStore) -> None:
    store.write(PART, VALUES)
    folder = store.path / PART.name
    (folder / "zarr.json").unlink()
    zarr.create_array(
        store.path, name=PART.name, shape=PART.shape, dtype="uint8", zarr_format=2, fill_value=9
    )
    assert (folder / ".zarray").is_file()
    with pytest.raises(StoreError, match="has no zarr.json") as caught:
        store.read(PART.name)
    assert "run preprocess NAME`" in caught.value.hint
    store.plan([PART])
    assert not (folder / ".zarray").exists()
    store.write(PART, VALUES)
    np.testing.assert_array_equal(store.read(PART.name), VALUES)


@pytest.mark.slow
def test_killed_writers_never_commit_wrong_rows(tmp_path: Path) -> None:
    """Two writers of the same part, killed at random moments, thirty times."""
    script = textwrap.dedent(
        """
        import sys, numpy as np
        from pathlib import Path
        from giblet_hpc.arrays import ArraySpec
        from giblet_hpc.store import FeatureStore
        part = ArraySpec("bold/a/b", (512, 2000), "float32", {}, max_shard_rows=1)
        values = np.arange(512 * 2000, dtype="float32").reshape(512, 2000)
        store = FeatureStore(Path(sys.argv[1])); store.plan([part])
        print("ready", flush=True); store.write(part, values)
        """
    )
    random = np.random.default_rng(0)
    folder = tmp_path / "s.zarr"
    part = ArraySpec("bold/a/b", (512, 2000), "float32", {}, max_shard_rows=1)
    values = np.arange(512 * 2000, dtype=np.float32).reshape(512, 2000)
    kills = 0
    for _ in range(30):
        command = [sys.executable, "-c", script, str(folder)]
        writers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        time.sleep(float(random.uniform(0, 0.1)))
        for writer in writers:
            if writer.poll() is None:
                os.kill(writer.pid, signal.SIGKILL)
                kills += 1
            writer.wait()
            writer.stdout.close()
        store = FeatureStore(folder)
        missing = store.missing(part)
        array = zarr.open_array(folder, path=part.name, mode="r")
        for shard in set(range(part.shards)) - set(missing):
            np.testing.assert_array_equal(array[part.rows(shard)], values[part.rows(shard)])
        if not missing:
            break
    assert kills >= 6
    FeatureStore(folder).write(part, values)
    np.testing.assert_array_equal(FeatureStore(folder).read(part.name), values)
