"""A folder on a node's own disk for as long as an attempt lasts, whatever ends it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "giblet-attempt-"
HELD = "held"
"""A file that is locked while the folder is in use; the kernel unlocks it, whatever happens."""


@contextlib.contextmanager
def local_folder() -> Iterator[Path]:
    """Give a folder on this node's disk that no other user can enter; remove it at the end.

    Folders that supervisors of this user could not remove, as they were killed, go first.
    """
    remove_unheld()
    folder = Path(tempfile.mkdtemp(prefix=_prefix()))
    with (folder / f"{HELD}.new").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        # Named only when it is locked: another supervisor may be looking just now.
        (folder / f"{HELD}.new").rename(folder / HELD)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _prefix() -> str:
    """Return how this node's folders are called: some sites give all nodes one folder for them."""
    return f"{PREFIX}{socket.gethostname()}-"


def remove_unheld() -> None:
    """Remove this user's folders on this node that no process holds any more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_prefix()}*"):
        with contextlib.suppress(OSError):
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                continue
            with (folder / HELD).open() as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
