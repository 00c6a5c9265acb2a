"""Zarr arrays on a file system that need not have hard links."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
import zarr.codecs
from numpy.typing import NDArray
from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from giblet_hpc.arrays import ArraySpec
from giblet_hpc.shard_rows import CRC, NOTHING


class Folder(LocalStore):
    """A folder of zarr's, for one writer at a time: who creates arrays holds the store's lock."""

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write a file that is not there yet; the base class makes a hard link for it."""
        if not await self.exists(key):
            await self.set(key, value)


def create_group(path: Path) -> None:
    """Make a folder a zarr group, unless it is one."""
    zarr.open_group(Folder(path), mode="a", zarr_format=3)


def create_array(path: Path, name: str, spec: ArraySpec, shape: tuple[int, ...]) -> Any:
    """Create an array with a spec's chunks, shards and codecs."""
    return zarr.create_array(
        store=Folder(path),
        name=name,
        shape=shape,
        dtype=spec.dtype,
        chunks=(1, *spec.shape[1:]),
        shards=(spec.shard_rows, *spec.shape[1:]),
        compressors=[zarr.codecs.Crc32cCodec()],
        chunk_key_encoding={"name": "default", "separator": "."},
        fill_value=0,
        attributes=dict(spec.attributes),
        config={"write_empty_chunks": False},
    )


def create_empty_array(path: Path, name: str, attributes: dict[str, Any]) -> None:
    """Create an array without values: a folder that zarr knows, for files of ours."""
    zarr.create_array(
        store=Folder(path), name=name, shape=(0,), dtype="uint8", chunks=(1,), attributes=attributes
    )


def shard_layout(spec: ArraySpec) -> list[dict[str, Any]]:
    """Return the codecs of a spec's arrays, as their zarr.json has them."""
    plain = {"name": "bytes"}
    little = {**plain, "configuration": {"endian": "little"}}
    inner = plain if np.dtype(spec.dtype).itemsize == 1 else little
    crc = {"name": "crc32c"}
    sharding = {
        "chunk_shape": [1, *spec.shape[1:]],
        "codecs": [inner, crc],
        "index_codecs": [little, crc],
        "index_location": "end",
    }
    return [{"name": "sharding_indexed", "configuration": sharding}]


def write_shard(file: Path, rows: NDArray[Any], count: int) -> tuple[int, str]:
    """Write rows as the file of a shard; return its size and sha256.

    The same bytes as zarr writes: rows one after the other, each with its crc32c, then where each
    begins and how long it is (the zarr specification's `sharding_indexed`). Rows of zeros are left
    out, as zarr does with empty chunks.

    Parameters
    ----------
    file : Path
    rows : ndarray
    count : int
        Rows of a whole shard, of which the last of an array may have fewer.
    """
    digest, size, position = hashlib.sha256(), 0, 0
    index = np.full((count, 2), NOTHING, dtype="<u8")
    with file.open("xb") as handle:
        for number, row in enumerate(rows):
            values = np.ascontiguousarray(row, dtype=row.dtype.newbyteorder("<")).reshape(-1)
            content = values.view(np.uint8)
            if not content.any():
                # Zarr's fill value: a run that a subject lacks takes no room.
                continue
            index[number] = position, content.nbytes + CRC
            position += content.nbytes + CRC
            for part in (content.data, _crc(content.tobytes())):
                handle.write(part)
                digest.update(part)
        text = index.tobytes()
        text += _crc(text)
        handle.write(text)
        digest.update(text)
        handle.flush()
        os.fsync(handle.fileno())
    size = position + len(text)
    return size, digest.hexdigest()


def read_shard(file: Path, out: NDArray[Any], count: int, *, sha256: str) -> str:
    """Read a shard's rows; return what is wrong with it, empty when nothing is.

    The file is read and hashed once; as its sha256 is right, so are its rows.

    Parameters
    ----------
    file : Path
    out : ndarray
        Contiguous; receives the rows.
    count : int
        Rows of a whole shard.
    sha256 : str
        Of the file.
    """
    try:
        content = np.fromfile(file, dtype=np.uint8)
    except OSError as error:
        return f"cannot be read ({error})"
    if hashlib.sha256(content.data).hexdigest() != sha256:
        return "content is damaged"
    if not out.size:
        return ""
    index = content[len(content) - 16 * count - CRC : -CRC].view("<u8").reshape(count, 2)
    width = out.nbytes // len(out)
    there = (index[: len(out)] != NOTHING).any(axis=1)
    rows = out.reshape(len(out), -1).view(np.uint8)
    rows[~there] = 0
    if not there.any():
        return ""
    begins, sizes = index[: len(out)][there].astype(np.int64).T
    if (sizes != width + CRC).any() or begins.min() < 0 or (begins + sizes).max() > len(content):
        return "content is not laid out as its description says"
    step = width + CRC
    if there.all() and (np.diff(begins) == step).all():
        # One after the other: copied in one go.
        stretch = content[begins[0] : begins[0] + step * len(out)]
        rows[:] = stretch.reshape(len(out), step)[:, :width]
    else:
        for row, begin in zip(np.flatnonzero(there), begins, strict=True):
            rows[row] = content[begin : begin + width]
    return ""


def _crc(content: bytes) -> bytes:
    value: int = google_crc32c.value(content)
    return value.to_bytes(CRC, "little")
