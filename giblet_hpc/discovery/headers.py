"""What the first bytes of a file of scans say: how many TRs, and how long one is."""

from __future__ import annotations

import gzip
import json
import re
import struct
from pathlib import Path
from typing import NamedTuple

NIFTI1, NIFTI2 = 348, 540
UNITS = {16: 1e-3, 24: 1e-6}
"""Of time, in xyzt_units: milliseconds and microseconds."""
HEAD_BYTES = 1 << 18


class Header(NamedTuple):
    """What a file says of itself."""

    tr: float | None
    """Seconds; None where it does not say."""
    trs: int | None
    """None where it does not say, or holds one volume."""
    grid: tuple[int, ...] = ()
    """Voxels along x, y, z of a volume."""


NOTHING = Header(None, None)


def read_header(path: Path) -> Header:
    """Read the header of a file of scans; nothing is known of files that have none.

    A BIDS sidecar beside it has the last word on the TR.
    """
    name = path.name.lower()
    try:
        head = _head(path)
        if name.endswith((".nii", ".nii.gz", ".hdr", ".hdr.gz")):
            found = _nifti(head)
        elif name.endswith(".gii"):
            found = _gifti(head)
        else:
            found = NOTHING
    except (OSError, EOFError, struct.error, ValueError):
        found = NOTHING
    return found._replace(tr=_sidecar(path) or found.tr)


def _head(path: Path) -> bytes:
    if path.suffix.lower() == ".gz":
        with gzip.open(path) as handle:
            return handle.read(HEAD_BYTES)
    with path.open("rb") as plain:
        return plain.read(HEAD_BYTES)


def _nifti(head: bytes) -> Header:
    for order in "<>":
        size = struct.unpack(f"{order}i", head[:4])[0]
        if size == NIFTI1:
            dims = struct.unpack(f"{order}8h", head[40:56])
            step = struct.unpack(f"{order}8f", head[76:108])[4]
            units = head[123]
        elif size == NIFTI2:
            dims = struct.unpack(f"{order}8q", head[16:80])
            step = struct.unpack(f"{order}8d", head[104:168])[4]
            units = struct.unpack(f"{order}i", head[500:504])[0]
        else:
            continue
        if series := re.search(rb'SeriesStep="([0-9.]+)"', head):
            return Header(float(series[1]), int(dims[5]))
        seconds = step * UNITS.get(units & 0x38, 1.0)
        stated = seconds if seconds > 0 and not (step == 1 and units & 0x38 in (0, 8)) else None
        trs = int(dims[4]) if dims[0] > 3 and dims[4] > 1 else None
        return Header(round(stated, 6) if stated else None, trs, tuple(map(int, dims[1:4])))
    return NOTHING


def _gifti(head: bytes) -> Header:
    text = head.decode("utf-8", "replace")
    arrays = re.search(r'NumberOfDataArrays="(\d+)"', text)
    step = re.search(r"TimeStep.*?<Value>(?:<!\[CDATA\[)?([0-9.]+)", text, re.DOTALL)
    value = float(step[1]) if step else 0.0
    seconds = (value / 1000 if value >= 100 else value) or None
    return Header(seconds, int(arrays[1]) if arrays else None)


def _sidecar(path: Path) -> float | None:
    """Return the repetition time that a JSON file beside the scans says."""
    stem = re.sub(r"(\.nii(\.gz)?|\.func\.gii|\.dtseries\.nii|\.h5)$", "", path.name)
    for file in (path.with_name(f"{stem}.json"), path.with_name(f"{stem}.dtseries.json")):
        try:
            value = json.loads(file.read_text())["RepetitionTime"]
            return float(value)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None
