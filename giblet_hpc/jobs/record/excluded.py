"""Nodes that lost a job lately: excluded from jobs for a while, then forgiven."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from giblet_hpc.files import read_json, write_json
from giblet_hpc.jobs.schedulers.base import NoAnswer, Scheduler
from giblet_hpc.runs.paths import RunPaths


def remember(paths: RunPaths, nodes: Sequence[str], *, reason: str, hours: float) -> None:
    """Exclude nodes for some hours."""
    if not nodes:
        return
    until = time.time() + 3600 * hours
    record = known(paths)
    for node in nodes:
        record[node] = {"until": until, "reason": reason, "run": paths.name}
    write_json(paths.excluded_nodes, record)


def forget(paths: RunPaths) -> None:
    """Forgive all nodes."""
    write_json(paths.excluded_nodes, {})


def to_exclude(
    paths: RunPaths, scheduler: Scheduler, *, partition: str | None, needed: int
) -> list[str]:
    """Return the nodes to leave out of a job; none unless enough nodes are known to be left."""
    nodes = sorted(known(paths))
    if not nodes:
        return []
    usable = scheduler.usable_nodes(partition)
    if isinstance(usable, NoAnswer) or usable - len(nodes) < needed:
        return []
    return nodes


def known(paths: RunPaths) -> dict[str, dict[str, Any]]:
    """Return what is remembered of each node that is excluded now, by name."""
    file = paths.excluded_nodes
    record: dict[str, dict[str, Any]] = read_json(file) if file.is_file() else {}
    return {node: facts for node, facts in record.items() if facts["until"] > time.time()}


def in_words(paths: RunPaths) -> list[str]:
    """Return a line for each node that is excluded now."""
    return [
        f"{node} until {time.strftime('%Y-%m-%d %H:%M', time.localtime(facts['until']))}: "
        f"{facts['reason']}"
        for node, facts in sorted(known(paths).items())
    ]
