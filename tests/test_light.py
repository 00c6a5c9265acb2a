"""The command line stays light: heavy packages are imported inside jobs only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from giblet_hpc.cli import main

HEAVY = ["torch", "numpy", "zarr", "pandas", "scipy", "sklearn", "transformers", "nibabel", "av"]
DEMO = Path(__file__).parents[1] / "configs" / "demo.yaml"


def commands(group: object, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [before]
    for name, command in sorted(getattr(group, "commands", {}).items()):
        found += commands(command, (*before, name))
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        *((*path, "--help") for path in commands(main)),
        ("config", "check", str(DEMO)),
        ("config", "schema"),
        ("status", "--runs", "nowhere"),
        ("submit", "pipeline", "--config", str(DEMO), "--dry-run", "--runs", "nowhere"),
    ],
    ids=" ".join,
)
def test_no_heavy_imports(arguments: tuple[str, ...], tmp_path: Path) -> None:
    script = (
        "import sys\nfrom giblet_hpc.cli import main\n"
        f"main({list(arguments)!r}, standalone_mode=False)\n"
        f"loaded = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not list(tmp_path.iterdir())
