"""Writing and reading a checkpoint: whole or absent, its content known by sha256."""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import torch

from giblet_hpc.errors import DataError
from giblet_hpc.files import TEMPORARY_MARK, fsync_folder, sha256_file, write_json, write_with
from giblet_hpc.runs.checkpoints import (
    MANIFEST,
    STATE,
    is_valid,
    manifest_of,
    name_of,
    prune,
    set_best,
    set_latest,
)
from giblet_hpc.runs.environment import IMAGE

logger = logging.getLogger(__name__)


def save(
    folder: Path, state: dict[str, Any], manifest: dict[str, Any], *, best: bool, keep_last: int
) -> Path:
    """Write a checkpoint, make it the latest, then remove old ones.

    Parameters
    ----------
    folder : Path
        Folder of all checkpoints.
    state : dict
        Tensors and plain values, loadable with ``weights_only``.
    manifest : dict
        What the checkpoint belongs to; must hold ``step``.
    best : bool
        Whether it is the best so far.
    keep_last : int
        Checkpoints to keep besides the best.

    Returns
    -------
    Path
        The committed checkpoint.

    Raises
    ------
    OSError
        When the disk is full or fails; earlier checkpoints are untouched.
    """
    final = folder / name_of(manifest["step"])
    if not is_valid(final):
        temporary = folder / f"{TEMPORARY_MARK}{uuid.uuid4().hex[:8]}-{final.name}"
        temporary.mkdir(parents=True)
        try:
            _write_state(temporary / STATE, state)
            size = (temporary / STATE).stat().st_size
            files = {STATE: {"size": size, "sha256": sha256_file(temporary / STATE)}}
            write_json(temporary / MANIFEST, {**manifest, "files": files})
            if final.exists():
                shutil.rmtree(final)
            temporary.rename(final)
            fsync_folder(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    set_latest(folder, final)
    if best:
        set_best(folder, manifest["step"])
    prune(folder, keep_last)
    return final


def _write_state(path: Path, state: dict[str, Any]) -> None:
    """Write a state; torch hides the system's error behind one of its own."""
    try:
        write_with(path, lambda handle: torch.save(state, handle))
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def load(path: Path, *, mmap: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a checkpoint's state (on the CPU) and its manifest.

    Parameters
    ----------
    path : Path
    mmap : bool
        Leave tensors in the file until they are copied. Not for what is kept as it is: the file
        will be removed.
    """
    state: dict[str, Any] = torch.load(
        path / STATE, map_location="cpu", weights_only=True, mmap=mmap
    )
    return state, manifest_of(path)


def require_data(manifest: dict[str, Any], digest: str) -> None:
    """Check that a checkpoint comes from the data that its run has now.

    Raises
    ------
    DataError
        When the store's parts or the split have changed since.
    """
    if manifest["data"] != digest:
        raise DataError(
            f"the checkpoint of step {manifest['step']} was trained on other data",
            hint="the features or the split were made anew: submit the config under another --name",
        )


def maker(ranks: int, parallel: str) -> dict[str, str]:
    """Return what has to be the same for a resumed run to be bitwise the same."""
    return {
        "ranks": str(ranks),
        "parallel": parallel,
        "torch": torch.__version__,
        "image": os.environ.get(IMAGE, "") or "none",
    }


def compare_makers(then: dict[str, str], now: dict[str, str]) -> None:
    """Warn of what differs between a checkpoint's maker and this process."""
    for name, value in now.items():
        if then[name] != value:
            logger.warning(
                "the checkpoint was made with %s %s, this is %s: it goes on, but not bitwise the "
                "same",
                name,
                then[name],
                value,
            )
