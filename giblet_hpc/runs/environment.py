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


def attempt_folder() -> Path | None:
    """Return the folder of the attempt that this process belongs to; None without a supervisor."""
    name = os.environ.get(ATTEMPT)
    return Path(name) if name else None


def host() -> str:
    """Return this node's name: the scheduler's, which a container's own need not be."""
    return os.environ.get(HOST) or socket.gethostname()
