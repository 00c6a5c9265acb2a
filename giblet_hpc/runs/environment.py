"""The variables by which a supervisor tells its stage's processes what they need to know."""

from __future__ import annotations

import os
import socket
from pathlib import Path

ATTEMPT = "GIBLET_ATTEMPT"
"""Folder of the attempt that the processes belong to."""
GPUS = "GIBLET_GPUS"
"""How many GPUs their job has on each node."""
IMAGE = "GIBLET_IMAGE"
"""Digest of the container image that they are in."""
LOCAL = "GIBLET_LOCAL"
"""Folder on the node's own disk, shared by the supervisor and its ranks."""
SUPERVISOR = "GIBLET_SUPERVISOR"
"""Process id of the supervisor."""
TOKEN = "GIBLET_TOKEN"  # noqa: S105 - names a variable
"""Names this execution on this node, in every process that belongs to it."""
NODE = "GIBLET_NODE"
"""Number of the node among those of the job."""
HOST = "GIBLET_HOST"
"""Name of the node, as the scheduler has it."""
FIRST_RANK = "GIBLET_FIRST_RANK"
"""Global rank of the node's first process: each node's torchrun counts from 0."""
WORLD_SIZE = "GIBLET_WORLD_SIZE"
"""How many ranks there are on all nodes."""
RENDEZVOUS = "GIBLET_RENDEZVOUS"
"""File by which the ranks of all nodes find each other."""
MEETING = "GIBLET_MEETING"
"""Private folder on the node in which its ranks, where there are no others, find each other."""
SAFE_PATH = "PYTHONSAFEPATH"
"""Keeps Python from importing what lies in the working folder, where others may write."""


def attempt_folder() -> Path | None:
    """Return the folder of the attempt that this process belongs to; None without a supervisor."""
    name = os.environ.get(ATTEMPT)
    return Path(name) if name else None


def is_rank() -> bool:
    """Return whether torchrun has started this process, as one of several or of one."""
    return "LOCAL_RANK" in os.environ


def global_rank() -> int:
    """Return this process's rank among those of all nodes."""
    return int(os.environ.get(FIRST_RANK, "0")) + int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """Return how many ranks this node has."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def world_size() -> int:
    """Return how many ranks all nodes have."""
    return int(os.environ.get(WORLD_SIZE) or local_world_size())


def host() -> str:
    """Return this node's name: the scheduler's, which a container's own need not be."""
    return os.environ.get(HOST) or socket.gethostname()
