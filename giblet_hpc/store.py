"""The feature store: a Zarr v3 group whose rows are TRs, written shard by shard.

Layout::

    STORE/stimulus/RUN/MODALITY   shared/MODALITY   bold/SUBJECT/RUN   valid/SUBJECT/RUN
          stats/SUBJECT/RUN   mask   regions
    STORE/.giblet/arrays/ARRAY.json           what an array is made from
    STORE/.giblet/commits/ARRAY/SHARD.json    written last: this shard is whole and good

`.giblet` is itself an empty array, whose attributes hold the number of this layout: plain zarr
lists it without a remark, and does not look inside.

A shard counts only when its commit record names the array's present provenance and the shard's
size and sha256. Shards are the unit of writing: nobody writes less than a whole one, so two
writers of the same array do harmless double work.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.arrays import ArraySpec, changes, record_of, spec_of
from giblet_hpc.errors import StoreError
from giblet_hpc.files import (
    TEMPORARY_MARK,
    fsync_folder,
    read_json,
    sha256_file,
    sha256_json,
    write_json,
)
from giblet_hpc.shard_rows import ShardRows
from giblet_hpc.trust import append, make_private_folder
from giblet_hpc.zarr_files import (
    create_array,
    create_empty_array,
    create_group,
    read_shard,
    shard_layout,
    write_shard,
)

logger = logging.getLogger(__name__)
ANEW = "`giblet-hpc run preprocess NAME` makes the array anew"
RECORDS = ".giblet"
FORMAT = 2
"""Layout of stores. Others are refused."""


class FeatureStore:
    """A store on disk.

    Parameters
    ----------
    path : Path
        Folder of the store.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records = path / RECORDS

    def plan(self, specs: Iterable[ArraySpec], *, rebuild: bool = False) -> None:
        """Create the arrays that are not there yet; a store that has them all is only read.

        Parameters
        ----------
        specs : iterable of ArraySpec
        rebuild : bool
            Discard arrays that were made from something else, instead of refusing.

        Raises
        ------
        StoreError
            When an array exists with another provenance, naming what differs; or when the store
            has another layout.
        """
        new = [spec for spec in specs if self._recorded_fingerprint(spec.name) != spec.fingerprint]
        if self.exists() and not new:
            return
        make_private_folder(self.path)
        with self.shared():
            self._records.mkdir(parents=True, exist_ok=True)
            with append(self._records / "plan.lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not self.exists():
                    self._lay_out()
                for spec in new:
                    self._plan_array(spec, rebuild=rebuild)

    def exists(self) -> bool:
        """Whether there is a store, of the layout that this version reads and writes.

        Raises
        ------
        StoreError
            When its layout is another one.
        """
        metadata = self._records / "zarr.json"
        if not metadata.is_file():
            if any(self._records.glob("*/")):
                self._raise_other_format()
            return False
        if read_json(metadata)["attributes"].get("format") != FORMAT:
            self._raise_other_format()
        return True

    def _raise_other_format(self) -> None:
        raise StoreError(
            f"{self.path} was made by another version of giblet-hpc: make it anew",
            hint="name a new folder with --set study.store=DIR, or remove the old one, and run "
            "`giblet-hpc submit preprocess`",
        )

    def _lay_out(self) -> None:
        about = {"format": FORMAT, "about": "what giblet-hpc records of this store"}
        create_group(self.path)
        create_empty_array(self.path, RECORDS, about)

    def _recorded_fingerprint(self, name: str) -> str:
        """Return what an array is made from; empty when it, or zarr's description, is not there."""
        record = self._array_record(name)
        there = record.is_file() and self._description(name).is_file()
        return str(read_json(record)["fingerprint"]) if there else ""

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Let the group write what is made inside, where the store's folder belongs to a group.

        A folder with the setgid bit does: its files are renewed by renaming, for which others
        need to write to the folders that this process makes.
        """
        folder = next(f for f in (self.path, *self.path.parents) if f.exists())
        if not (folder == self.path and folder.stat().st_mode & stat.S_ISGID):
            yield
            return
        before = os.umask(0o007)
        try:
            yield
        finally:
            os.umask(before)

    def _plan_array(self, spec: ArraySpec, *, rebuild: bool) -> None:
        record, because = self._array_record(spec.name), []
        if record.is_file():
            known = read_json(record)
            if self._recorded_fingerprint(spec.name) == spec.fingerprint:
                return
            # What nobody has written yet is no loss, nor is what cannot be read any more.
            other = known["fingerprint"] != spec.fingerprint
            if (
                other
                and not rebuild
                and any((self._records / "commits" / spec.name).glob("*.json"))
            ):
                self._refuse(spec, known)
            if because := changes(known, spec):
                logger.info("%s is made again: %s", spec.name, "; ".join(because))
            self._discard(spec.name)
        self._create(spec, because)

    def _refuse(self, spec: ArraySpec, known: Mapping[str, Any]) -> None:
        lines = changes(known, spec)
        raise StoreError(
            "\n  ".join([f"{self.path}: `{spec.name}` was made with other settings:", *lines]),
            hint="name another store with --set study.store=DIR, or replace those arrays with "
            "`giblet-hpc run preprocess NAME --rebuild`",
        )

    def _create(self, spec: ArraySpec, because: Sequence[str]) -> None:
        folder = self.path / spec.name
        if folder.exists():
            shutil.rmtree(folder)
        create_array(self.path, spec.name, spec, spec.shape)
        write_json(self._array_record(spec.name), record_of(spec, because))

    def _discard(self, name: str) -> None:
        shutil.rmtree(self._records / "commits" / name, ignore_errors=True)
        self._array_record(name).unlink(missing_ok=True)
        shutil.rmtree(self.path / name, ignore_errors=True)

    def _array_record(self, name: str) -> Path:
        return self._records / "arrays" / f"{name}.json"

    def _commit_record(self, name: str, shard: int) -> Path:
        return self._records / "commits" / name / f"{shard}.json"

    def _shard_file(self, spec: ArraySpec, shard: int) -> Path:
        key = ".".join(["c", str(shard), *("0" for _ in spec.shape[1:])])
        return self.path / spec.name / key

    def arrays(self) -> list[ArraySpec]:
        """Return all planned arrays, by name."""
        folder = self._records / "arrays"
        return [
            spec_of(read_json(path))
            for path in sorted(folder.rglob("*.json"))
            if not path.name.startswith(TEMPORARY_MARK)
        ]

    def array(self, name: str) -> ArraySpec:
        """Return one planned array.

        Raises
        ------
        StoreError
            When the store has no such array.
        """
        record = self._array_record(name)
        if not record.is_file():
            raise StoreError(
                f"{self.path} has no `{name}`", hint="`giblet-hpc run preprocess NAME` writes it"
            )
        return spec_of(read_json(record))

    def missing(self, spec: ArraySpec) -> list[int]:
        """Return the shards without a valid commit record, checking size and sha256."""
        return [shard for shard in range(spec.shards) if self._problem(spec, shard, deep=True)]

    def _problem(self, spec: ArraySpec, shard: int, *, deep: bool) -> str:
        """Say what is wrong with a shard; empty when it is committed and good."""
        record_path = self._commit_record(spec.name, shard)
        if not record_path.is_file():
            return "not written"
        record = read_json(record_path)
        if record["fingerprint"] != spec.fingerprint:
            return "made with other settings"
        file = self._shard_file(spec, shard)
        if not file.is_file():
            return "file is gone"
        if file.stat().st_size != record["size"]:
            return f"size {file.stat().st_size}, expected {record['size']}"
        if deep and sha256_file(file) != record["sha256"]:
            return "content is damaged"
        return ""

    def write_shard(self, spec: ArraySpec, shard: int, rows: NDArray[Any]) -> None:
        """Write one whole shard, read it back, then commit it.

        Raises
        ------
        StoreError
            When what was read back differs.
        OSError
            When the disk is full or fails.
        """
        expected = spec.rows(shard)
        assert rows.shape == (expected.stop - expected.start, *spec.shape[1:]), rows.shape
        with self.shared():
            size, digest = self._make_shard(spec, shard, rows)
            write_json(
                self._commit_record(spec.name, shard),
                {
                    "fingerprint": spec.fingerprint,
                    "size": size,
                    "sha256": digest,
                    "rows": [expected.start, expected.stop],
                },
            )

    def _make_shard(self, spec: ArraySpec, shard: int, rows: NDArray[Any]) -> tuple[int, str]:
        """Put a shard's file into place; return its size and sha256."""
        final = self._shard_file(spec, shard)
        # The file is made elsewhere and renamed into place whole, so that another writer of the
        # same shard, or a reader, sees one good file or the other.
        staging = self._records / f"{TEMPORARY_MARK}{uuid.uuid4().hex[:8]}"
        staging.mkdir()
        try:
            written = staging / "shard"
            size, digest = write_shard(written, rows, spec.shard_rows)
            back = np.empty(rows.shape, dtype=rows.dtype)
            problem = read_shard(written, back, spec.shard_rows, sha256=digest)
            if problem or not np.array_equal(back, rows, equal_nan=rows.dtype.kind == "f"):
                raise StoreError(f"{final} reads back other values than were written")
            written.replace(final)
            fsync_folder(final.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return size, digest

    def write(self, spec: ArraySpec, values: NDArray[Any]) -> None:
        """Write those shards of an array that are missing, from the whole array."""
        for shard in self.missing(spec):
            self.write_shard(spec, shard, values[spec.rows(shard)])

    def _require_layout(self, spec: ArraySpec) -> None:
        """Check that an array is described as it is written here."""
        file = self._description(spec.name)
        if not file.is_file():
            raise StoreError(f"{self.path}: `{spec.name}` has no zarr.json", hint=ANEW)
        if read_json(file).get("codecs") != shard_layout(spec):
            raise StoreError(
                f"{file}: shards are not laid out as this version writes them", hint=ANEW
            )

    def _description(self, name: str) -> Path:
        return self.path / name / "zarr.json"

    def read(self, name: str, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Read a whole array into memory, each shard checked by its sha256.

        Parameters
        ----------
        name : str
        out : ndarray, optional
            Of the array's shape and type: receives the rows.

        Raises
        ------
        StoreError
            When a shard is missing, damaged or of other settings.
        """
        spec = self.array(name)
        self._require_layout(spec)
        out = np.empty(spec.shape, dtype=spec.dtype) if out is None else out
        for shard in range(spec.shards):
            problem = self._problem(spec, shard, deep=False) or read_shard(
                self._shard_file(spec, shard), out[spec.rows(shard)], spec.shard_rows,
                sha256=read_json(self._commit_record(name, shard))["sha256"],
            )  # fmt: skip
            if problem:
                self._raise_incomplete(spec, shard, problem)
        return out

    def rows(self, name: str) -> ShardRows:
        """Return what reads single rows of an array.

        Raises
        ------
        StoreError
            When a shard is missing, of other settings or of another size.
        """
        spec = self.array(name)
        self._require_layout(spec)
        for shard in range(spec.shards):
            if problem := self._problem(spec, shard, deep=False):
                self._raise_incomplete(spec, shard, problem)
        return ShardRows(spec, [self._shard_file(spec, shard) for shard in range(spec.shards)])

    def content(self, name: str) -> str:
        """Return a digest of an array's description and values, from the records of its shards.

        Raises
        ------
        StoreError
            When a shard has no record.
        """
        spec, shards = self.array(name), []
        for shard in range(spec.shards):
            record = self._commit_record(name, shard)
            if not record.is_file():
                self._raise_incomplete(spec, shard, "not written")
            shards.append(read_json(record)["sha256"])
        file = self._description(name)
        return sha256_json([sha256_file(file) if file.is_file() else "", *shards])

    def _raise_incomplete(self, spec: ArraySpec, shard: int, problem: str) -> None:
        raise StoreError(
            f"{self.path}: `{spec.name}` shard {shard}: {problem}",
            hint="`giblet-hpc run preprocess NAME` writes what is missing or damaged",
        )

    def verify(self) -> list[str]:
        """Check every shard of every array against its record and return what is wrong."""
        return [
            f"{spec.name} shard {shard}: {problem}"
            for spec in self.arrays()
            for shard in range(spec.shards)
            if (problem := self._problem(spec, shard, deep=True))
        ]

    def summary(self) -> list[dict[str, Any]]:
        """Return name, shape, type, bytes, shards and committed shards of every array."""
        rows = []
        for spec in self.arrays():
            good = [s for s in range(spec.shards) if not self._problem(spec, s, deep=False)]
            size = sum(self._shard_file(spec, shard).stat().st_size for shard in good)
            rows.append({
                "array": spec.name, "shape": list(spec.shape), "dtype": spec.dtype,
                "bytes": size, "shards": spec.shards, "committed": len(good),
                "because": read_json(self._array_record(spec.name)).get("because", []),
            })  # fmt: skip
        return rows
