from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from giblet_hpc.stages import inventory


def test_all_that_is_installed_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  ./models--a--b/blobs/abc\n")
    monkeypatch.setattr(inventory, "WEIGHTS", tmp_path)
    found = inventory.inventory()
    references = [component["bom-ref"] for component in found["components"]]
    assert len(set(references)) == len(references)
    for name in ("torch", "numpy", "submitit"):
        version = metadata.version(name).replace("+", "%2B")
        assert f"pkg:pypi/{name}@{version}" in references
    (weights,) = [c for c in found["components"] if c["type"] == "machine-learning-model"]
    assert weights["name"] == "./models--a--b/blobs/abc"
    assert weights["hashes"] == [{"alg": "SHA-256", "content": "0" * 64}]
    dpkg = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Package}\n"], capture_output=True, text=True
    )
    system = [c for c in found["components"] if c["bom-ref"].startswith("pkg:deb/")]
    assert len(system) == len(dpkg.stdout.splitlines())


def test_it_is_the_same_each_time() -> None:
    said = [
        subprocess.run(
            [sys.executable, "-m", "giblet_hpc.stages.inventory"],
            capture_output=True, check=True,
        ).stdout
        for _ in range(2)
    ]  # fmt: skip
    assert said[0] == said[1]
    assert json.loads(said[0])["bomFormat"] == "CycloneDX"
