"""The feature store: a Zarr v3 group whose rows are TRs, written shard by shard.

Layout::

    STORE/stimulus/RUN/{video,audio,text}   bold/SUBJECT/RUN   valid/SUBJECT/RUN
          stats/SUBJECT/RUN   mask   regions
    STORE/.giblet/parts/PART.json           what a part is made from
    STORE/.giblet/commits/PART/SHARD.json   written last: this shard is whole and good

A shard counts only when its commit record names the part's present provenance and the shard's
size and sha256. Shards are the unit of writing: nobody writes less than a whole one, so two
writers of the same part do harmless double work.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.codecs
import zarr.errors
from numpy.typing import NDArray

from giblet_hpc.config_io import differences
from giblet_hpc.errors import StoreError
from giblet_hpc.files import (
    TEMPORARY_MARK,
    fsync_folder,
    read_json,
    sha256_file,
    sha256_json,
    write_json,
)

SHARD_BYTES = 100_000_000
RECORDS = ".giblet"
STALE_SECONDS = 2 * 24 * 3600.0


@dataclass(frozen=True)
class Part:
    """One array of the store and what it is made from."""

    name: str
    """Path of the array in the store, such as `stimulus/run1/video`."""
    shape: tuple[int, ...]
    """Rows first."""
    dtype: str
    """numpy name of the type."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Digests of inputs and code, and the settings: all that the content depends on."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Stored with the array for its readers."""
    max_shard_rows: int | None = None
    """Smaller shards than 100 MB, for parts that are slow to compute."""

    @property
    def shard_rows(self) -> int:
        """Rows of a shard: about 100 MB, at most the whole array."""
        row = int(np.prod(self.shape[1:], dtype=np.int64)) * np.dtype(self.dtype).itemsize
        rows = min(self.shape[0], SHARD_BYTES // max(1, row), self.max_shard_rows or 2**62)
        return max(1, rows)

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.shape[0] // self.shard_rows)

    @property
    def fingerprint(self) -> str:
        """sha256 of provenance, shape and type."""
        return sha256_json([dict(self.provenance), list(self.shape), self.dtype])

    def rows(self, shard: int) -> slice:
        """Rows of a shard."""
        return slice(shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.shape[0]))


def _create_array(store: Path, name: str, part: Part, shape: tuple[int, ...]) -> Any:
    """Create an array with a part's chunks, shards and codecs."""
    return zarr.create_array(
        store=store,
        name=name,
        shape=shape,
        dtype=part.dtype,
        chunks=(1, *part.shape[1:]),
        shards=(part.shard_rows, *part.shape[1:]),
        compressors=[zarr.codecs.Crc32cCodec()],
        chunk_key_encoding={"name": "default", "separator": "."},
        fill_value=0,
        attributes=dict(part.attributes),
        config={"write_empty_chunks": True},
    )


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

    def plan(self, parts: Iterable[Part], *, rebuild: bool = False) -> None:
        """Create the arrays of ``parts`` that are not there yet.

        Parameters
        ----------
        parts : iterable of Part
        rebuild : bool
            Discard parts that were made from something else, instead of refusing.

        Raises
        ------
        StoreError
            When a part exists with another provenance; the message names what differs.
        """
        with self.shared():
            self._records.mkdir(parents=True, exist_ok=True)
            with (self._records / "plan.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                zarr.open_group(self.path, mode="a", zarr_format=3)
                for part in parts:
                    self._plan_part(part, rebuild=rebuild)

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

    def _plan_part(self, part: Part, *, rebuild: bool) -> None:
        record = self._part_record(part.name)
        if record.is_file():
            known = read_json(record)
            if known["fingerprint"] == part.fingerprint:
                return
            # What nobody has written yet is no loss.
            if not rebuild and any((self._records / "commits" / part.name).glob("*.json")):
                self._refuse(part, known)
            self._discard(part.name)
        self._create(part)

    def _refuse(self, part: Part, known: Mapping[str, Any]) -> None:
        old = {"shape": known["shape"], "dtype": known["dtype"], **known["provenance"]}
        new = {"shape": list(part.shape), "dtype": part.dtype, **part.provenance}
        lines = differences(old, new)
        raise StoreError(
            "\n  ".join([f"{self.path}: `{part.name}` was made with other settings:", *lines]),
            hint="name another store with --set study.store=DIR, or replace those parts with "
            "`giblet-hpc run preprocess NAME --rebuild`",
        )

    def _create(self, part: Part) -> None:
        folder = self.path / part.name
        if folder.exists():
            shutil.rmtree(folder)
        _create_array(self.path, part.name, part, part.shape)
        write_json(
            self._part_record(part.name),
            {
                "name": part.name,
                "shape": list(part.shape),
                "dtype": part.dtype,
                "provenance": dict(part.provenance),
                "fingerprint": part.fingerprint,
                "attributes": dict(part.attributes),
                "max_shard_rows": part.max_shard_rows,
            },
        )

    def _discard(self, name: str) -> None:
        shutil.rmtree(self._records / "commits" / name, ignore_errors=True)
        self._part_record(name).unlink(missing_ok=True)
        shutil.rmtree(self.path / name, ignore_errors=True)

    def _part_record(self, name: str) -> Path:
        return self._records / "parts" / f"{name}.json"

    def _commit_record(self, name: str, shard: int) -> Path:
        return self._records / "commits" / name / f"{shard}.json"

    def _shard_file(self, part: Part, shard: int) -> Path:
        key = ".".join(["c", str(shard), *("0" for _ in part.shape[1:])])
        return self.path / part.name / key

    def parts(self) -> list[Part]:
        """Return all planned parts, by name."""
        folder = self._records / "parts"
        return [
            self._to_part(read_json(path))
            for path in sorted(folder.rglob("*.json"))
            if not path.name.startswith(TEMPORARY_MARK)
        ]

    def part(self, name: str) -> Part:
        """Return one planned part.

        Raises
        ------
        StoreError
            When the store has no such part.
        """
        record = self._part_record(name)
        if not record.is_file():
            raise StoreError(
                f"{self.path} has no `{name}`", hint="`giblet-hpc run preprocess NAME` writes it"
            )
        return self._to_part(read_json(record))

    @staticmethod
    def _to_part(record: Mapping[str, Any]) -> Part:
        return Part(
            record["name"],
            tuple(record["shape"]),
            record["dtype"],
            record["provenance"],
            record["attributes"],
            record["max_shard_rows"],
        )

    def missing(self, part: Part) -> list[int]:
        """Return the shards without a valid commit record, checking size and sha256."""
        return [shard for shard in range(part.shards) if self._problem(part, shard, deep=True)]

    def _problem(self, part: Part, shard: int, *, deep: bool) -> str:
        """Say what is wrong with a shard; empty when it is committed and good."""
        record_path = self._commit_record(part.name, shard)
        if not record_path.is_file():
            return "not written"
        record = read_json(record_path)
        if record["fingerprint"] != part.fingerprint:
            return "made with other settings"
        file = self._shard_file(part, shard)
        if not file.is_file():
            return "file is gone"
        if file.stat().st_size != record["size"]:
            return f"size {file.stat().st_size}, expected {record['size']}"
        if deep and sha256_file(file) != record["sha256"]:
            return "content is damaged"
        return ""

    def write_shard(self, part: Part, shard: int, rows: NDArray[Any]) -> None:
        """Write one whole shard, read it back, then commit it.

        Raises
        ------
        StoreError
            When what was read back differs.
        OSError
            When the disk is full or fails.
        """
        expected = part.rows(shard)
        assert rows.shape == (expected.stop - expected.start, *part.shape[1:]), rows.shape
        with self.shared():
            size, digest = self._make_shard(part, shard, rows)
            write_json(
                self._commit_record(part.name, shard),
                {
                    "fingerprint": part.fingerprint,
                    "size": size,
                    "sha256": digest,
                    "rows": [expected.start, expected.stop],
                },
            )

    def _make_shard(self, part: Part, shard: int, rows: NDArray[Any]) -> tuple[int, str]:
        """Put a shard's file into place; return its size and sha256."""
        final = self._shard_file(part, shard)
        # The file is made elsewhere and renamed into place whole, so that another writer of the
        # same shard, or a reader, sees one good file or the other.
        workshop = self._records / f"{TEMPORARY_MARK}{uuid.uuid4().hex[:8]}"
        try:
            array = _create_array(workshop, "shard", part, rows.shape)
            array[:] = rows
            made = workshop / "shard" / ".".join("c" + "0" * len(part.shape))
            with made.open("rb") as handle:
                os.fsync(handle.fileno())
            if not np.array_equal(array[:], rows, equal_nan=rows.dtype.kind == "f"):
                raise StoreError(f"{final} reads back other values than were written")
            size, digest = made.stat().st_size, sha256_file(made)
            made.replace(final)
            fsync_folder(final.parent)
        finally:
            shutil.rmtree(workshop, ignore_errors=True)
        return size, digest

    def write(self, part: Part, values: NDArray[Any]) -> None:
        """Write those shards of a part that are missing, from the whole array."""
        for shard in self.missing(part):
            self.write_shard(part, shard, values[part.rows(shard)])

    def _array(self, name: str, *, mode: str) -> Any:
        return zarr.open_array(self.path, path=name, mode=mode)

    def read(self, name: str) -> NDArray[Any]:
        """Read a whole part into memory, shard by shard, each chunk checked by its crc32c.

        Raises
        ------
        StoreError
            When a shard is missing, damaged or of other settings.
        """
        part = self.part(name)
        array = self._array(name, mode="r")
        out = np.empty(part.shape, dtype=part.dtype)
        for shard in range(part.shards):
            problem = self._problem(part, shard, deep=False)
            if problem:
                self._raise_incomplete(part, shard, problem)
            try:
                out[part.rows(shard)] = array[part.rows(shard)]
            except (ValueError, RuntimeError, OSError, zarr.errors.BaseZarrError) as error:
                self._raise_incomplete(part, shard, f"content is damaged ({error})")
        return out

    def _raise_incomplete(self, part: Part, shard: int, problem: str) -> None:
        raise StoreError(
            f"{self.path}: `{part.name}` shard {shard}: {problem}",
            hint="`giblet-hpc run preprocess NAME` writes what is missing or damaged",
        )

    def verify(self) -> list[str]:
        """Check every shard of every part against its record and return what is wrong."""
        return [
            f"{part.name} shard {shard}: {problem}"
            for part in self.parts()
            for shard in range(part.shards)
            if (problem := self._problem(part, shard, deep=True))
        ]

    def summary(self) -> list[dict[str, Any]]:
        """Return name, shape, type, bytes, shards and committed shards of every part."""
        rows = []
        for part in self.parts():
            good = [s for s in range(part.shards) if not self._problem(part, s, deep=False)]
            size = sum(self._shard_file(part, shard).stat().st_size for shard in good)
            rows.append(
                {
                    "part": part.name,
                    "shape": list(part.shape),
                    "dtype": part.dtype,
                    "bytes": size,
                    "shards": part.shards,
                    "committed": len(good),
                }
            )
        return rows

    def collect_garbage(self, *, older_than: float = STALE_SECONDS) -> list[Path]:
        """Remove temporary files that a killed writer left, and return them.

        Parameters
        ----------
        older_than : float
            Age in seconds; younger files may belong to a writer at work.
        """
        removed = []
        limit = time.time() - older_than
        for path in list(self.path.rglob("*")):
            temporary = path.name.startswith(TEMPORARY_MARK) or path.name.endswith(".partial")
            if temporary and path.exists() and path.stat().st_mtime <= limit:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                removed.append(path)
        return removed
