"""What NCCL's messages mean, also those that are not text.

NCCL may put the raw bytes of a memory handle where it means to name a file. torch passes them on
in an exception's text, Python cannot decode it, and all that is seen is a UnicodeDecodeError out of
the first collective. The bytes are in the exception: they are decoded here, and explained.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

SOURCES = re.compile(r"NCCL|ProcessGroupNCCL|\bnccl[A-Z]\w+|\[c10d\]")
LONGEST = 600


@dataclass(frozen=True)
class Cause:
    """What lies behind a message.

    Parameters
    ----------
    pattern : str
        Of the message.
    reason, remedy : str
        In a sentence each.
    """

    pattern: str
    reason: str
    remedy: str


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
    ),
)


class NcclError(RuntimeError):
    """What NCCL said, readable.

    Parameters
    ----------
    message : str
    hint : str
        What to do.
    """

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def explain(text: str) -> Cause | None:
    """Return what lies behind a message of NCCL's; None when it is not known."""
    return next((cause for cause in CAUSES if re.search(cause.pattern, text)), None)


def decode(error: UnicodeDecodeError) -> NcclError | None:
    """Return the message that could not be decoded; None when it is not NCCL's.

    Parameters
    ----------
    error : UnicodeDecodeError
        Holds the bytes of the whole message.
    """
    text = error.object.decode("utf-8", "backslashreplace").replace("\0", "")
    if not SOURCES.search(text):
        return None
    cause = explain(text)
    said = " ".join(text.split())
    said = said if len(said) <= LONGEST else f"{said[: LONGEST // 2]} ... {said[-LONGEST // 2 :]}"
    if cause is None:
        return NcclError(f"NCCL failed: {said}", hint="NCCL_DEBUG=INFO makes it say more")
    return NcclError(f"{cause.reason}. NCCL: {said}", hint=cause.remedy)


@contextlib.contextmanager
def readable() -> Iterator[None]:
    """Turn a UnicodeDecodeError that hides a message of NCCL's into that message.

    Raises
    ------
    NcclError
        With the message, its cause and a remedy in the hint.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        found = decode(error)
        if found is None:
            raise
        raise found from error
