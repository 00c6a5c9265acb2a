"""Nodes that lost a job lately: excluded from jobs for a while, then forgiven."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

from giblet_hpc.errors import DataError
from giblet_hpc.files import read_json, write_json
from giblet_hpc.jobs.schedulers.base import NoAnswer, Scheduler
from giblet_hpc.runs.paths import RunPaths

HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What may stand in a job's request; the folder is one that others may be able to write."""


def remember(paths: RunPaths, nodes: Sequence[str], *, reason: str, hours: float) -> None:
    """Exclude nodes for some hours; each has a file, as many jobs write here."""
    until = time.time() + 3600 * hours
    for node in nodes:
        facts = {"until": until, "reason": reason, "run": paths.name}
        write_json(paths.excluded_nodes / f"{node}.json", facts)


def forget(paths: RunPaths) -> None:
    """Forgive all nodes."""
    for file in paths.excluded_nodes.glob("*.json"):
        file.unlink(missing_ok=True)


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
    found = {}
    for file in paths.excluded_nodes.glob("*.json"):
        try:
            facts = read_json(file)
            if HOST_NAME.fullmatch(file.stem) and float(facts["until"]) > time.time():
                found[file.stem] = {"reason": "", **facts}
        except (DataError, KeyError, TypeError, ValueError):
            # A record that says nothing excludes nothing.
            continue
    return found


def in_words(paths: RunPaths) -> list[str]:
    """Return a line for each node that is excluded now."""
    return [
        f"{node} until {time.strftime('%Y-%m-%d %H:%M', time.localtime(facts['until']))}: "
        f"{facts['reason']}"
        for node, facts in sorted(known(paths).items())
    ]
