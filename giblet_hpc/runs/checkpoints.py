"""The checkpoints of a fold on disk: names, which is newest, best or damaged, pruning.

checkpoints/step-00000480/   committed by renaming it: manifest.json, and a file of each rank's,
                             rank-00000.safetensors
checkpoints/latest, best     text files with a folder's name
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from giblet_hpc.errors import ConfigError, DataError
from giblet_hpc.files import TEMPORARY_MARK, read_json, sha256_file, write_text
from giblet_hpc.trust import read_text

logger = logging.getLogger(__name__)
MANIFEST = "manifest.json"
LATEST, BEST = "latest", "best"


def name_of(step: int) -> str:
    """Return the folder name of a step's checkpoint."""
    return f"step-{step:08d}"


def step_of(folder: Path) -> int:
    """Return the step of a checkpoint, from its folder's name."""
    return int(folder.name.rpartition("-")[2])


def committed(folder: Path) -> list[Path]:
    """Return the checkpoints in a fold's folder, oldest first, damaged or not."""
    return sorted(path for path in folder.glob("step-*") if (path / MANIFEST).is_file())


def of_step(folder: Path, step: int) -> Path:
    """Return a step's checkpoint.

    Raises
    ------
    ConfigError
        When there is none; it names those there are.
    """
    path = folder / name_of(step)
    if not (path / MANIFEST).is_file():
        known = ", ".join(str(step_of(one)) for one in committed(folder))
        raise ConfigError(f"there is no checkpoint of step {step}; there are: {known or 'none'}")
    return path


def manifest_of(path: Path) -> dict[str, Any]:
    """Return what a checkpoint says of itself."""
    manifest: dict[str, Any] = read_json(path / MANIFEST)
    return manifest


def is_valid(path: Path) -> bool:
    """Whether a checkpoint's files have the size and sha256 of its manifest."""
    if not (path / MANIFEST).is_file():
        return False
    try:
        files = manifest_of(path)["files"]
    except (DataError, KeyError):
        return False
    return all(
        (path / name).is_file()
        and (path / name).stat().st_size == expected["size"]
        and sha256_file(path / name) == expected["sha256"]
        for name, expected in files.items()
    )


def newest(folder: Path) -> Path | None:
    """Return the newest valid checkpoint; damaged ones are passed over with a warning."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        if is_valid(path):
            return path
        logger.warning("checkpoint %s is damaged; trying the one before", path)
    return None


def best(folder: Path) -> Path:
    """Return the best checkpoint, without reading its content.

    Raises
    ------
    DataError
        When there is none.
    """
    pointer = folder / BEST
    if not pointer.is_file():
        raise DataError(f"no best checkpoint in {folder}", hint="run `giblet-hpc submit train`")
    return folder / read_text(pointer).strip()


def require_valid(path: Path) -> Path:
    """Return a checkpoint whose content is what its manifest says.

    Raises
    ------
    DataError
        When it is damaged.
    """
    if not is_valid(path):
        raise DataError(f"checkpoint {path} is damaged", hint="train again, or restore the file")
    return path


def valid_best(folder: Path) -> Path:
    """Return the best checkpoint.

    Raises
    ------
    DataError
        When there is none, or it is damaged.
    """
    return require_valid(best(folder))


def set_latest(folder: Path, path: Path) -> None:
    """Name a checkpoint as the latest."""
    write_text(folder / LATEST, path.name)


def set_best(folder: Path, step: int) -> None:
    """Name a step's checkpoint as the best."""
    write_text(folder / BEST, name_of(step))


def prune(folder: Path, keep_last: int) -> None:
    """Remove all but the last few and the best, and what killed writers left."""
    pointers = [folder / name for name in (LATEST, BEST)]
    kept = {read_text(pointer) for pointer in pointers if pointer.exists()}
    for path in committed(folder)[:-keep_last]:
        if path.name not in kept:
            shutil.rmtree(path)
    for path in folder.glob(f"{TEMPORARY_MARK}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def folds(root: Path) -> Iterator[Path]:
    """Yield the folders, under a run's checkpoints, that hold checkpoints: one a fold."""
    for pointer in sorted(root.glob(f"**/{LATEST}")):
        yield pointer.parent


def latest_step(root: Path) -> int:
    """Return the step of the latest checkpoint, summed over folds: what a crash cannot undo."""
    pointers = [*root.glob(LATEST), *root.glob(f"*/{LATEST}")]
    return sum(int(read_text(pointer).rpartition("-")[2]) for pointer in pointers)


def rewind(root: Path, step: int, aside: Path) -> None:
    """Make a step's checkpoint the newest; later ones are moved aside, not deleted.

    A best checkpoint among those that are moved is replaced by the best of what stays.

    Parameters
    ----------
    root : Path
        A run's folder of checkpoints.
    step : int
    aside : Path
        Receives the later ones.

    Raises
    ------
    ConfigError
        When there is no such checkpoint.
    """
    every = [path for folder in folds(root) for path in committed(folder)]
    chosen = [path for path in every if step_of(path) == step]
    if not chosen:
        known = ", ".join(
            str(step_of(path)) if path.parent == root else f"{path.parent.name} {step_of(path)}"
            for path in every
        )
        raise ConfigError(
            f"there is no checkpoint of step {step}; there are: {known or 'none'}",
            hint="give --from one of these, or none to go on from the last",
        )
    for kept in chosen:
        folder = kept.parent
        for later in committed(folder):
            if step_of(later) > step:
                target = aside / (folder.name if folder != root else "")
                target.mkdir(parents=True, exist_ok=True)
                later.rename(target / later.name)
        set_latest(folder, kept)
        _mend_best(folder, kept)


def _mend_best(folder: Path, kept: Path) -> None:
    """Point to the best checkpoint that is left, as the newest one remembers it."""
    pointer = folder / BEST
    if not pointer.is_file() or (folder / read_text(pointer).strip() / MANIFEST).is_file():
        return
    remembered = manifest_of(kept).get("best_step")
    if remembered is not None and (folder / name_of(remembered) / MANIFEST).is_file():
        set_best(folder, remembered)
    else:
        pointer.unlink()
