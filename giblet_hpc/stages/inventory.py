"""What an image consists of, as CycloneDX 1.6: `python -m giblet_hpc.stages.inventory`.

Written into each image when it is built, as /opt/giblet-sbom.cdx.json. It has no time and no random
number in it: the same image has the same inventory.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from giblet_hpc import __version__
from giblet_hpc.stages import WEIGHTS

OWN_NAME = "giblet-hpc"


def inventory() -> dict[str, Any]:
    """Return the inventory: Python's packages, the system's, and weights, with their licences."""
    components = [*_python_packages(), *_system_packages(), *_weights()]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container", "bom-ref": "image", "name": OWN_NAME, "version": __version__,
            }
        },
        "components": sorted(components, key=lambda component: str(component["bom-ref"])),
    }  # fmt: skip


def _component(kind: str, purl: str, name: str, version: str) -> dict[str, Any]:
    return {"type": kind, "bom-ref": purl, "purl": purl, "name": name, "version": version}


def _python_packages() -> list[dict[str, Any]]:
    found = []
    for package in metadata.distributions():
        name, version = package.metadata["Name"].lower().replace("_", "-"), package.version
        part = _component("library", f"pkg:pypi/{name}@{quote(version)}", name, version)
        # One is free text, at times all of the licence; the other an expression by SPDX.
        if "License-Expression" in package.metadata:
            part["licenses"] = [{"expression": package.metadata["License-Expression"]}]
        found.append(part)
    return found


def _system_packages() -> list[dict[str, Any]]:
    """Return what dpkg has installed; nothing on a system without it."""
    form = "${Package}\t${Version}\t${Architecture}\n"
    try:
        listed = subprocess.run(
            ["/usr/bin/dpkg-query", "--show", f"--showformat={form}"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    except FileNotFoundError:
        return []
    release = Path("/etc/os-release").read_text()
    system = next(line[3:].strip('"') for line in release.splitlines() if line.startswith("ID="))
    found = []
    for line in listed.splitlines():
        name, version, architecture = line.split("\t")
        purl = f"pkg:deb/{system}/{quote(name)}@{quote(version, safe='')}?arch={architecture}"
        found.append(_component("library", purl, name, version))
    return found


def _weights() -> list[dict[str, Any]]:
    """Return the weights that the image carries, with their digests."""
    sums = WEIGHTS / "SHA256SUMS"
    found = []
    for line in sums.read_text().splitlines() if sums.is_file() else []:
        digest, _, name = line.partition(" ")
        found.append({
            "type": "machine-learning-model",
            "bom-ref": f"weights/{name.lstrip(' *')}",
            "name": name.lstrip(" *"),
            "hashes": [{"alg": "SHA-256", "content": digest}],
        })  # fmt: skip
    return found


if __name__ == "__main__":
    json.dump(inventory(), sys.stdout, indent=1)
