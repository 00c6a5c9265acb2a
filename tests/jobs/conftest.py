from __future__ import annotations

from pathlib import Path

import pytest

from giblet_hpc.config import io
from giblet_hpc.runs.paths import RunPaths


@pytest.fixture
def paths(tmp_path: Path, demo_config: str) -> RunPaths:
    paths = RunPaths(tmp_path / "a run")
    paths.create(io.load(Path(demo_config)))
    return paths
