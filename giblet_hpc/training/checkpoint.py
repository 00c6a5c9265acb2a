"""Writing and reading a checkpoint: whole or absent, its content known by sha256.

Each rank writes a file of its own. What is written is copied first, so that training goes on while
it is written; the checkpoint counts when rank 0 has renamed its folder, after all have written.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from giblet_hpc.errors import DataError, NodeError
from giblet_hpc.files import TEMPORARY_MARK, fsync_folder, write_json
from giblet_hpc.runs.checkpoints import (
    MANIFEST,
    is_valid,
    manifest_of,
    name_of,
    prune,
    set_best,
    set_latest,
)
from giblet_hpc.runs.environment import IMAGE
from giblet_hpc.training.pieces import Piece, Source, merged, write_pieces
from giblet_hpc.training.world import World

logger = logging.getLogger(__name__)


class Writer:
    """Writes a fold's checkpoints, one at a time, while training goes on.

    Parameters
    ----------
    folder : Path
        Folder of all checkpoints.
    world : World
    keep_last : int
        Checkpoints to keep besides the best.
    """

    def __init__(self, folder: Path, world: World, *, keep_last: int) -> None:
        self._folder, self._keep_last = folder, keep_last
        self._world, self._beside = world, world.beside()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._staged: dict[str, torch.Tensor] = {}
        self.blocked = self.seconds = 0.0
        """How long the last checkpoint kept training waiting, and took in all."""

    def save(self, pieces: Sequence[Piece], manifest: dict[str, Any], *, best: bool) -> None:
        """Copy this rank's pieces and begin to write them; all ranks have to call.

        Parameters
        ----------
        pieces : sequence of Piece
            Those that this rank writes.
        manifest : dict
            What the checkpoint belongs to; must hold ``step``.
        best : bool
            Whether it is the best so far.

        Raises
        ------
        OSError
            When the checkpoint before could not be written.
        """
        self.wait()
        started = time.perf_counter()
        staged = [replace(piece, values=self._copy(piece)) for piece in pieces]
        self.blocked = time.perf_counter() - started
        self._thread = threading.Thread(
            target=self._run, args=(staged, manifest, best, started), daemon=True
        )
        self._thread.start()

    def _copy(self, piece: Piece) -> torch.Tensor:
        """Copy a piece to the CPU, into memory that is kept: new memory is slow."""
        values, place = piece.values.detach(), self._staged.get(piece.name)
        if place is None or place.shape != values.shape or place.dtype != values.dtype:
            place = torch.empty(values.shape, dtype=values.dtype, pin_memory=values.is_cuda)
            self._staged[piece.name] = place
        return place.copy_(values)

    @property
    def failed(self) -> bool:
        """Whether the last checkpoint could not be written, as `wait` will say."""
        return self._error is not None

    def wait(self) -> None:
        """Wait until the checkpoint that is being written counts.

        Raises
        ------
        OSError
            When the disk is full or fails; earlier checkpoints are untouched.
        NodeError
            When another rank could not write its part.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(
        self, staged: list[Piece], manifest: dict[str, Any], best: bool, started: float
    ) -> None:
        try:
            self._write(staged, manifest, best=best)
        except BaseException as error:  # noqa: BLE001
            # It is raised where training waits for this checkpoint.
            self._error = error
        self.seconds = time.perf_counter() - started

    def _write(self, staged: list[Piece], manifest: dict[str, Any], *, best: bool) -> None:
        world, final = self._beside, self._folder / name_of(manifest["step"])
        name = f"{TEMPORARY_MARK}{uuid.uuid4().hex[:8]}-{final.name}"
        if world.is_main and not is_valid(final):
            (self._folder / name).mkdir(parents=True)
        name = world.broadcast(name if (self._folder / name).is_dir() else "")
        if name:
            temporary = self._folder / name
            try:
                parts = self._written(temporary, staged)
                if world.is_main:
                    _commit(temporary, final, {**manifest, **parts})
            finally:
                if world.is_main:
                    shutil.rmtree(temporary, ignore_errors=True)
        if world.is_main:
            set_latest(self._folder, final)
            if best:
                set_best(self._folder, manifest["step"])
            prune(self._folder, self._keep_last)
        world.wait()

    def _written(self, temporary: Path, staged: list[Piece]) -> dict[str, Any]:
        """Write this rank's file; return what the manifest says of all ranks' files."""
        file, error = f"rank-{self._world.rank:05d}.safetensors", None
        size, digest = 0, ""
        try:
            size, digest = write_pieces(temporary / file, staged)
        except OSError as caught:
            error = caught
        own: dict[str, Any] = {
            "file": file, "size": size, "sha256": digest, "error": str(error or ""),
            "layout": merged({piece.name: piece.place(file)} for piece in staged),
        }  # fmt: skip
        everyone = self._beside.gather(own)
        if error is not None:
            raise error
        for part in everyone:
            if part["error"]:
                raise NodeError(f"{part['file']} could not be written: {part['error']}")
        return {
            "files": {p["file"]: {"size": p["size"], "sha256": p["sha256"]} for p in everyone},
            "tensors": merged(part["layout"] for part in everyone),
        }


def _commit(temporary: Path, final: Path, manifest: dict[str, Any]) -> None:
    write_json(temporary / MANIFEST, manifest)
    if final.exists():
        shutil.rmtree(final)
    temporary.rename(final)
    fsync_folder(final.parent)


def load(path: Path) -> tuple[Source, dict[str, Any]]:
    """Return a checkpoint's tensors, which are read when asked for, and its manifest.

    Raises
    ------
    DataError
        When another version has written it.
    """
    manifest = manifest_of(path)
    if "tensors" not in manifest:
        raise DataError(
            f"checkpoint {path} is of another version of this program",
            hint="train again, or go on with the version that its provenance.json names",
        )
    return Source(path, manifest["tensors"]), manifest


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of a checkpoint, whole."""
    source, _ = load(path)
    return {name: source.read(name) for name in source.names()}


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
