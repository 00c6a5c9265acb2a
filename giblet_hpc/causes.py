"""Known causes of failures: what in a message or a log tells them, and what to do about each.

One table, in order: what is more particular comes first. What only follows from the end of another
rank comes last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """What lies behind a message.

    Parameters
    ----------
    pattern : str
        Of the message.
    reason, remedy : str
        In a sentence each.
    follows : bool
        Whether it only follows from the end of another rank: never the cause where there is one.
    """

    pattern: str
    reason: str
    remedy: str
    follows: bool = False


CAUSES = (
    Cause(
        r"/shm/nccl-[^\n]*?\\x[0-9a-f]{2}",
        "ranks of one node disagree about how to share host memory: one got a memory handle "
        "where it expected the name of a file in /dev/shm",
        "set NCCL_CUMEM_HOST_ENABLE=0 for every rank (`environment:` in the cluster profile); the "
        "cause is often a NUMA node without memory or cores, which an admin can mend",
    ),
    Cause(
        r"/shm/\S+.*No space left|No space left on device.*/shm|nccl.*shm.*No space left",
        "the node's shared memory (/dev/shm) is full",
        "give it more room: docker and podman want --ipc=host; on a node, remove what lies there",
    ),
    Cause(
        r"Duplicate GPU detected",
        "two ranks use the same GPU",
        "ask for as many GPUs as ranks; unset CUDA_VISIBLE_DEVICES where a job script sets it",
    ),
    Cause(
        r"[Nn]o socket interface found|No interface found",
        "NCCL found no network interface of the names it was told",
        "NCCL_SOCKET_IFNAME names interfaces that this node lacks: unset it, or correct it",
    ),
    Cause(
        r"ibv_reg_mr\w* failed|ibv_create_\w+ failed.*Cannot allocate|memlock",
        "InfiniBand may not lock memory",
        "`ulimit -l` has to say unlimited in jobs: an admin sets PropagateResourceLimitsExcept",
    ),
    Cause(
        r"[Ff]ailed to (initialize any NET plugin|find network)|NET/Plugin.*[Nn]o plugin found"
        r"|network .*AWS Libfabric.* not found",
        "the network plugin that NCCL_NET names is not in the image",
        "bind it (`binds:` in the cluster profile), or unset NCCL_NET to use sockets, slowly",
    ),
    Cause(
        r"CUDA driver version is insufficient|forward compatibility was attempted",
        "the GPU driver is older than this torch needs",
        "an image with an older CUDA, or a newer driver: `giblet-hpc doctor` names both",
    ),
    Cause(
        r"ncclUnhandledCudaError[\s\S]*out of memory|Cuda failure.*out of memory",
        "out of GPU memory inside NCCL",
        "halve train.batch_windows and double train.accumulation, or use more GPUs",
    ),
    Cause(
        r"ncclRemoteError|remote process exited|[Cc]onnection closed by remote peer",
        "another rank ended first",
        "look for the rank that ended first in the other nodes' logs",
        follows=True,
    ),
    Cause(
        r"CUDA out of memory|torch\.OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED",
        "out of GPU memory",
        "halve train.batch_windows and double train.accumulation, or use more GPUs",
    ),
    Cause(
        r"oom[-_]kill|Out Of Memory|MemoryError|Cannot allocate memory",
        "out of memory on the node",
        "raise memory_gb_per_node in the cluster profile, or use fewer ranks a node",
    ),
    Cause(
        r"Watchdog caught collective operation timeout|ncclSystemError",
        "a collective operation of NCCL failed or timed out",
        "often a lost rank or a bad link; a second attempt elsewhere tells",
    ),
    Cause(
        r"mount source .* doesn't exist|failed to mount|no such file or directory.*bind",
        "a folder could not be bound into the container",
        "correct the paths under `binds` in the cluster profile",
    ),
    Cause(
        r"the nodes did not find each other",
        "the nodes did not find each other",
        "can the nodes reach each other by name? `giblet-hpc doctor` tries it",
    ),
    Cause(
        r"Timed out waiting \d+ms for (recv|send) operation|Connection closed by peer"
        r"|Connection reset by peer|Broken pipe|gloo.*(timed out|Timeout)",
        "a rank lost its connection to another (gloo)",
        "look for the rank that ended first in the other nodes' logs",
        follows=True,
    ),
)


def explain(text: str) -> Cause | None:
    """Return what lies behind a message or a log; None when it is not known."""
    found = [cause for cause in CAUSES if re.search(cause.pattern, text)]
    return next((cause for cause in found if not cause.follows), found[0] if found else None)
