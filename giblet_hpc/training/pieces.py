"""Tensors of a checkpoint in pieces: each rank writes some, and any rank reads the part it needs.

Files are safetensors (https://github.com/huggingface/safetensors): a header in JSON and plain
numbers, nothing that is unpickled. Which file holds which part of which tensor is in the
checkpoint's manifest.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open

from giblet_hpc.errors import DataError
from giblet_hpc.files import write_with

TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.uint8: "U8",
    torch.bool: "BOOL",
}  # fmt: skip
"""As safetensors names them."""
Layout = dict[str, dict[str, Any]]
"""For each tensor its `shape`, the `axis` that it is divided along or none, and `pieces`: file,
first row or column, and the one after the last."""


@dataclass(frozen=True)
class Piece:
    """A part of a tensor, or all of it.

    Parameters
    ----------
    name : str
        Of the tensor: ``model/...``, or ``optimizer/`` with a parameter's number and a moment.
    values : Tensor
        This part.
    shape : tuple of int
        Of the whole.
    axis : int, optional
        That the tensor is divided along; None: this is all of it.
    start : int
        Where this part begins on that axis.
    """

    name: str
    values: torch.Tensor
    shape: tuple[int, ...]
    axis: int | None = None
    start: int = 0

    def place(self, file: str) -> dict[str, Any]:
        """Return this piece's entry in a layout."""
        size = 0 if self.axis is None else self.values.shape[self.axis]
        where = [file, self.start, self.start + size]
        return {"shape": list(self.shape), "axis": self.axis, "pieces": [where]}


def whole(tensors: Mapping[str, torch.Tensor]) -> list[Piece]:
    """Return tensors as pieces of which each is all of it."""
    return [Piece(name, values, tuple(values.shape)) for name, values in tensors.items()]


def flat(
    model: Mapping[str, torch.Tensor], optimizer: Mapping[int, Mapping[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """Return the tensors of a model's and an optimizer's state under the names of pieces."""
    moments = {
        f"optimizer/{number}/{part}": values
        for number, parts in optimizer.items()
        for part, values in parts.items()
    }
    return {f"model/{name}": values for name, values in model.items()} | moments


def spread(names: Sequence[str], sizes: Sequence[int], ranks: int) -> dict[str, int]:
    """Return which of some ranks writes each tensor: the next largest goes where least is."""
    load = [0] * ranks
    chosen = {}
    for size, name in sorted(zip(sizes, names, strict=True), key=lambda one: (-one[0], one[1])):
        rank = min(range(ranks), key=load.__getitem__)
        load[rank] += size
        chosen[name] = rank
    return chosen


def merged(parts: Iterable[Layout]) -> Layout:
    """Return the layout of a whole checkpoint from those of its files."""
    layout: Layout = {}
    for part in parts:
        for name, entry in part.items():
            known = layout.setdefault(name, {**entry, "pieces": []})
            known["pieces"] = sorted([*known["pieces"], *entry["pieces"]], key=lambda p: p[1])
    return layout


def write_pieces(path: Path, pieces: Sequence[Piece]) -> tuple[int, str]:
    """Write pieces, on the CPU, as a safetensors file; return its size and sha256.

    Each byte is hashed on its way.

    Raises
    ------
    OSError
        When the disk is full or fails; nothing is left then.
    """
    header, offset = {}, 0
    for piece in pieces:
        size = piece.values.numel() * piece.values.element_size()
        header[piece.name] = {
            "dtype": TYPES[piece.values.dtype],
            "shape": list(piece.values.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    start, digest = len(text).to_bytes(8, "little") + text, hashlib.sha256()

    def write(handle: BinaryIO) -> None:
        contents = itertools.chain([memoryview(start)], map(_bytes, pieces))
        for content in contents:
            handle.write(content)
            digest.update(content)

    write_with(path, write)
    return len(start) + offset, digest.hexdigest()


def _bytes(piece: Piece) -> memoryview:
    values = piece.values.contiguous().reshape(-1).view(torch.uint8).numpy()
    return values.data


class Source:
    """Reads a checkpoint's tensors, whole or in part; what is not asked for is not read.

    Parameters
    ----------
    folder : Path
    layout : Layout
    prefix : str
        Of names that files hold without it.
    """

    def __init__(self, folder: Path, layout: Layout, *, prefix: str = "") -> None:
        self._folder, self._layout, self._prefix = folder, layout, prefix
        self._files: dict[str, Any] = {}
        # Opened at once: a checkpoint may be pruned while it is read.
        for name in {piece[0] for entry in layout.values() for piece in entry["pieces"]}:
            self._open(name)

    def _open(self, name: str) -> Any:
        if name not in self._files:
            try:
                self._files[name] = safe_open(self._folder / name, framework="pt")
            except FileNotFoundError as error:
                raise DataError(
                    f"{self._folder / name} was removed while it was read",
                    hint="training keeps few checkpoints; give the command again",
                ) from error
        return self._files[name]

    def release(self) -> None:
        """Let go of the files: what was read of them no longer counts as this process's memory."""
        self._files.clear()

    def names(self) -> Iterator[str]:
        """Yield the names of all tensors."""
        yield from self._layout

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a whole tensor."""
        return tuple(self._layout[name]["shape"])

    def read(self, name: str, axis: int | None = None, part: slice | None = None) -> torch.Tensor:
        """Return a tensor on the CPU, or its rows or columns ``part`` along ``axis``.

        Mapped from its file, where it can be: to be copied before the file is removed.
        """
        entry = self._layout[name]
        divided = entry["axis"]
        if divided is None:
            ((file, _, _),) = entry["pieces"]
            return self._cut(file, name, {} if axis is None else {axis: part})
        found = []
        for file, start, stop in entry["pieces"]:
            cut: dict[int, slice | None] = {}
            if axis is not None and axis == divided and part is not None:
                low, high = max(start, part.start), min(stop, part.stop)
                if low >= high:
                    continue
                cut = {axis: slice(low - start, high - start)}
            elif axis is not None:
                cut = {axis: part}
            found.append(self._cut(file, name, cut))
        if not found:
            shape = list(self.shape(name))
            shape[divided] = 0
            return self._cut(entry["pieces"][0][0], name, {}).new_empty(shape)
        return torch.cat(found, divided)

    def _cut(self, file: str, name: str, cut: Mapping[int, slice | None]) -> torch.Tensor:
        opened, name = self._open(file), name.removeprefix(self._prefix)
        if not cut:
            tensor: torch.Tensor = opened.get_tensor(name)
            return tensor
        ((axis, part),) = cut.items()
        index = (*[slice(None)] * axis, part)
        found: torch.Tensor = opened.get_slice(name)[index]
        return found
