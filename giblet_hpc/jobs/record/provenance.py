"""Where a result comes from: code, packages, machine, data, and every attempt's place and time."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import giblet_hpc
from giblet_hpc import __version__
from giblet_hpc.config.cluster import Cluster
from giblet_hpc.config.io import fingerprint
from giblet_hpc.files import read_json, write_json
from giblet_hpc.jobs.record.attempts import Attempt
from giblet_hpc.runs.paths import RunPaths

PACKAGES = (
    "torch", "numpy", "zarr", "transformers", "nibabel", "nilearn", "himalaya", "scikit-learn",
    "av", "encodec", "submitit", "pydantic",
)  # fmt: skip
SECONDS = 10.0


def read(paths: RunPaths) -> dict[str, Any]:
    """Return the record; empty before the first attempt."""
    facts: dict[str, Any] = read_json(paths.provenance) if paths.provenance.is_file() else {}
    return facts


def record(
    paths: RunPaths, attempt: Attempt, profile: Cluster, *, image: str, job: dict[str, str]
) -> None:
    """Add an attempt to a run's record: what runs, and where.

    Parameters
    ----------
    paths : RunPaths
    attempt : Attempt
    profile : Cluster
    image : str
        Digest of the container image; empty without one.
    job : dict of str to str
        What the scheduler says of the job, from its environment.
    """
    code = source()
    facts = {
        "attempt": attempt.number,
        "time": time.time(),
        "code": {name: code[name] for name in ("version", "commit", "diff_sha256")},
        "packages": packages(),
        "machine": machine(),
        "cluster": profile.name,
        "resources": {name: attempt.facts()[name] for name in ("ranks_per_node", "nodes", "gpus")},
        "image": {"name": profile.image, "digest": image} if image else {},
        "config": fingerprint(paths.load_config()),
        "inputs": read_json(paths.inputs) if paths.inputs.is_file() else {},
        "job": job,
    }
    known = read(paths)
    known.setdefault("attempts", []).append(facts)
    if code["diff"]:
        known.setdefault("diffs", {})[code["diff_sha256"]] = code["diff"]
    write_json(paths.provenance, known)


def source(root: Path = Path(giblet_hpc.__file__).parents[1]) -> dict[str, str]:
    """Return this package's version, and its git commit and local changes when it is a clone.

    Parameters
    ----------
    root : Path
        The folder that the package lies in.
    """
    # A clone of this package: not a repository of the user's that an environment lies in.
    own = _output("git", "-C", str(root), "rev-parse", "--show-toplevel") == str(root.resolve())
    commit = _output("git", "-C", str(root), "rev-parse", "HEAD") if own else ""
    diff = _output("git", "-C", str(root), "diff", "HEAD", "--", "giblet_hpc") if commit else ""
    digest = hashlib.sha256(diff.encode()).hexdigest() if diff else ""
    return {"version": __version__, "commit": commit, "diff": diff, "diff_sha256": digest}


def packages() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def machine() -> dict[str, str]:
    """Return what this machine is."""
    driver = _output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "python": sys.executable,
        "gpus": driver,
    }


def _output(*command: str) -> str:
    """Return a command's output; empty when it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
