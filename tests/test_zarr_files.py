"""A store on a file system that refuses what many do not have."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from giblet_hpc import files
from giblet_hpc.arrays import ArraySpec
from giblet_hpc.errors import StorageError, StoreError
from giblet_hpc.files import read_json
from giblet_hpc.store import RECORDS, FeatureStore
from giblet_hpc.zarr_files import (
    create_array,
    create_group,
    read_shard,
    shard_layout,
    write_shard,
)

PART = ArraySpec("stimulus/run1/sound", (6, 4), "float32", {"a": 1}, max_shard_rows=2)
VALUES = np.arange(24, dtype=np.float32).reshape(6, 4)


def fill(folder: Path) -> FeatureStore:
    store = FeatureStore(folder)
    store.plan([PART])
    store.write(PART, VALUES)
    return store


def refuse(number: int) -> object:
    def refused(*arguments: object, **_: object) -> None:
        raise OSError(number, os.strerror(number), arguments[0])

    return refused


def test_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refuse(errno.EPERM))
    store = fill(tmp_path / "s.zarr")
    np.testing.assert_array_equal(store.read(PART.name), VALUES)
    assert not store.verify()
    assert files.create_text(tmp_path / "new", "a")
    assert not files.create_text(tmp_path / "new", "b")
    assert (tmp_path / "new").read_text() == "a"


def test_no_fsync_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.fsync

    def fsync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    assert not fill(tmp_path / "s.zarr").verify()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full or the quota is used up"),
        (errno.EDQUOT, "the disk is full or the quota is used up"),
        (errno.EROFS, "is not yours to write"),
        (errno.EACCES, "is not yours to write"),
    ],
)
def test_what_a_file_system_refuses_is_one_sentence(number: int, words: str) -> None:
    error = OSError(number, os.strerror(number), "/data/store")
    found = files.explain(error)
    assert isinstance(found, StorageError)
    assert words in str(found) and found.hint
    assert files.explain(OSError(errno.ENOENT, "none", "/x")) is None


def test_a_complete_store_is_only_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A colleague's, on which nothing may be written."""
    fill(tmp_path / "s.zarr")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "s.zarr").rglob("*")}
    for name in ("open", "mkdir", "rename", "unlink"):
        if name == "open":
            continue
        monkeypatch.setattr(os, name, refuse(errno.EROFS))
        monkeypatch.setattr(Path, name, refuse(errno.EROFS))
    store = FeatureStore(tmp_path / "s.zarr")
    store.plan([PART])
    assert not store.missing(PART)
    np.testing.assert_array_equal(store.read(PART.name), VALUES)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "s.zarr")
    metadata = tmp_path / "s.zarr" / RECORDS / "zarr.json"
    metadata.write_text(metadata.read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(StoreError, match="made by another version of giblet-hpc: make it anew"):
        FeatureStore(tmp_path / "s.zarr").plan([PART])


def test_zarr_lists_it_without_a_warning(tmp_path: Path) -> None:
    fill(tmp_path / "s.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(tmp_path / "s.zarr", mode="r")
        assert RECORDS in dict(group.members())
        np.testing.assert_array_equal(group["stimulus/run1/sound"][:], VALUES)


def test_an_array_has_the_chunks_and_shards_of_its_spec(tmp_path: Path) -> None:
    create_group(tmp_path / "g")
    create_group(tmp_path / "g")
    array = create_array(tmp_path / "g", "a", PART, PART.shape)
    assert (array.chunks, array.shards) == ((1, 4), (2, 4))
    assert zarr.open_group(tmp_path / "g", mode="r")["a"].metadata.zarr_format == 3


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.sampled_from(["uint8", "int16", "float32", "float64", "bool"]),
    st.integers(1, 5),
)
def test_shards_are_byte_for_byte_those_of_zarr(shape: list[int], dtype: str, count: int) -> None:
    """And are read as they were written, also by plain zarr; an array's last shard has fewer."""
    random = np.random.default_rng(0)
    values = (random.random(shape) * 100).astype(dtype)
    spec = ArraySpec("a", tuple(shape), dtype, {}, max_shard_rows=count)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        create_group(folder)
        array = create_array(folder, "a", spec, spec.shape)
        array[:] = values
        assert read_json(folder / "a" / "zarr.json")["codecs"] == shard_layout(spec)
        for shard in range(spec.shards):
            rows = values[spec.rows(shard)]
            theirs = folder / "a" / ".".join(["c", str(shard), *("0" for _ in shape[1:])])
            size, digest = write_shard(folder / f"{shard}", rows, spec.shard_rows)
            content = (folder / f"{shard}").read_bytes()
            assert content == theirs.read_bytes()
            assert (size, digest) == (len(content), hashlib.sha256(content).hexdigest())
            out = np.empty_like(rows)
            assert read_shard(theirs, out, spec.shard_rows, sha256=digest) == ""
            np.testing.assert_array_equal(out, rows)


def test_rows_in_another_order_and_shards_of_another_layout(tmp_path: Path) -> None:
    """As other writers may place them; and a right digest of a wrong content."""
    file = tmp_path / "shard"
    write_shard(file, VALUES, 6)
    content = bytearray(file.read_bytes())
    row, index = 16 + 4, len(content) - 6 * 16 - 4
    content[:row], content[row : 2 * row] = content[row : 2 * row], content[:row]
    content[index : index + 16], content[index + 16 : index + 32] = (
        content[index + 16 : index + 32], content[index : index + 16],
    )  # fmt: skip
    out = np.zeros_like(VALUES)
    for changed, said in (
        (content, ""),
        (content[:index] + b"\x07" * (6 * 16 + 4), "not laid out"),
    ):
        file.write_bytes(changed)
        found = read_shard(file, out, 6, sha256=hashlib.sha256(changed).hexdigest())
        assert said in found if said else found == ""
        np.testing.assert_array_equal(out, VALUES)
    assert read_shard(file, out, 6, sha256="0") == "content is damaged"


def test_rows_of_zeros_take_no_room(tmp_path: Path) -> None:
    """As zarr leaves out empty chunks; read alone, in a row, and by zarr."""
    spec = ArraySpec("bold", (6, 4), "float32", {}, max_shard_rows=3)
    values = VALUES + 1
    values[[0, 1, 2, 4]] = 0
    store = FeatureStore(tmp_path / "s.zarr")
    store.plan([spec])
    store.write(spec, values)
    assert not store.verify()
    sizes = [(tmp_path / "s.zarr" / "bold" / f"c.{n}.0").stat().st_size for n in (0, 1)]
    assert sizes == [3 * 16 + 4, 2 * (16 + 4) + 3 * 16 + 4]
    np.testing.assert_array_equal(store.read("bold"), values)
    out = np.full((4, 4), 9, np.float32)
    store.rows("bold").read(2, out)
    np.testing.assert_array_equal(out, values[2:])
    np.testing.assert_array_equal(zarr.open_group(store.path, mode="r")["bold"][:], values)
    theirs = tmp_path / "theirs"
    create_group(theirs)
    create_array(theirs, "bold", spec, spec.shape)[:] = values
    assert (theirs / "bold" / "c.1.0").read_bytes() == (
        tmp_path / "s.zarr" / "bold" / "c.1.0"
    ).read_bytes()


def test_a_layout_of_another_version_is_not_read(tmp_path: Path) -> None:
    store = fill(tmp_path / "s.zarr")
    file = store.path / PART.name / "zarr.json"
    file.write_text(file.read_text().replace('"end"', '"start"'))
    with pytest.raises(StoreError, match="not laid out as this version writes them"):
        store.read(PART.name)
