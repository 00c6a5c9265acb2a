"""What NCCL's messages mean, also those that are not text.

NCCL may put the raw bytes of a memory handle where it means to name a file. torch passes them on
in an exception's text, Python cannot decode it, and all that is seen is a UnicodeDecodeError out of
the first collective. The bytes are in the exception: they are decoded here, and explained.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from giblet_hpc.causes import search

SOURCES = re.compile(r"NCCL|ProcessGroupNCCL|\bnccl[A-Z]\w+|\[c10d\]")
LONGEST = 600


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
    cause = search.explain(text)
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
