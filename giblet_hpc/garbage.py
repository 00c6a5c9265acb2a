"""What killed writers leave in a store."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from giblet_hpc.files import TEMPORARY_MARK

STALE_SECONDS = 2 * 24 * 3600.0


def collect_garbage(folder: Path, *, older_than: float = STALE_SECONDS) -> list[Path]:
    """Remove temporary files that a killed writer left, and return them.

    Parameters
    ----------
    folder : Path
        A store.
    older_than : float
        Age in seconds; younger files may belong to a writer at work.
    """
    removed = []
    limit = time.time() - older_than
    for path in list(folder.rglob("*")):
        temporary = path.name.startswith(TEMPORARY_MARK) or path.name.endswith(".partial")
        if temporary and os.path.lexists(path) and path.lstat().st_mtime <= limit:
            # What a link leads to is none of the store's.
            whole = path.is_dir() and not path.is_symlink()
            shutil.rmtree(path) if whole else path.unlink()
            removed.append(path)
    return removed
