"""Nodes that lost a job lately: left out for a while, then forgiven."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from giblet_hpc.files import read_json, write_json
from giblet_hpc.jobs import slurm
from giblet_hpc.jobs.cluster import Cluster
from giblet_hpc.runs import RunPaths


def file_of(paths: RunPaths) -> Path:
    """Return the record that all runs of a folder share."""
    return paths.root.parent / ".suspect-nodes.json"


def remember(paths: RunPaths, nodes: Sequence[str], *, reason: str, hours: float) -> None:
    """Leave nodes out for some hours."""
    if not nodes:
        return
    until = time.time() + 3600 * hours
    record: dict[str, Any] = read_json(file_of(paths)) if file_of(paths).is_file() else {}
    for node in nodes:
        record[node] = {"until": until, "reason": reason, "run": paths.name}
    write_json(file_of(paths), {n: r for n, r in record.items() if r["until"] > time.time()})


def to_leave_out(paths: RunPaths, profile: Cluster, needed: int) -> list[str]:
    """Return the nodes to leave out of a job; none when too few would be left for it."""
    nodes = known(paths)
    have = slurm.node_count(profile.partition)
    return nodes if have is None or have - len(nodes) >= needed else []


def known(paths: RunPaths) -> list[str]:
    """Return the nodes to leave out now."""
    record = read_json(file_of(paths)) if file_of(paths).is_file() else {}
    return sorted(node for node, facts in record.items() if facts["until"] > time.time())
