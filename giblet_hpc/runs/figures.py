"""The figures that a training has written so far."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.trust import read_text


def files(paths: RunPaths) -> dict[str, Path]:
    """Return the file of each fold that has begun, by the fold's name; empty for the only one."""
    found = sorted(paths.root.glob("metrics*.jsonl"))
    return {file.stem.removeprefix("metrics").removeprefix("-"): file for file in found}


def rows(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a file of figures; one that is being written is left out."""
    return [json.loads(line) for line in read_text(file).splitlines() if line.endswith("}")]
