"""Zarr arrays on a file system that need not have hard links."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zarr
import zarr.codecs
from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from giblet_hpc.arrays import ArraySpec


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
        config={"write_empty_chunks": True},
    )


def create_empty_array(path: Path, name: str, attributes: dict[str, Any]) -> None:
    """Create an array without values: a folder that zarr knows, for files of ours."""
    zarr.create_array(
        store=Folder(path), name=name, shape=(0,), dtype="uint8", chunks=(1,), attributes=attributes
    )
