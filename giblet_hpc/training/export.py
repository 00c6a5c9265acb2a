"""A checkpoint's weights as one safetensors file, for other programs and for other trainings."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from giblet_hpc.errors import ConfigError
from giblet_hpc.runs import checkpoints
from giblet_hpc.training import checkpoint
from giblet_hpc.training.pieces import Layout, Source, whole, write_pieces

MODEL = "model/"


def export_weights(folder: Path, target: Path, *, step: int | None = None) -> int:
    """Write the weights and buffers of a fold's best checkpoint, or of a step's.

    Parameters
    ----------
    folder : Path
        Of the fold's checkpoints.
    target : Path
        Receives float32 tensors by the network's own names; written whole or not at all.
    step : int, optional
        Instead of the best.

    Returns
    -------
    int
        The checkpoint's step.

    Raises
    ------
    ConfigError
        When there is no checkpoint of that step.
    DataError
        When there is none at all, or it is damaged.
    """
    path = checkpoints.of_step(folder, step) if step is not None else checkpoints.best(folder)
    source, manifest = checkpoint.load(checkpoints.require_valid(path))
    names = [name for name in source.names() if name.startswith(MODEL)]
    write_pieces(target, whole({n.removeprefix(MODEL): source.read(n) for n in names}))
    return int(manifest["step"])


def exported(file: Path) -> Source:
    """Return what reads an exported file as it reads a checkpoint.

    Raises
    ------
    ConfigError
        When there is no such file, or it is none of safetensors.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            names = list(opened.keys())
            shapes = {n: opened.get_slice(n).get_shape() for n in names}
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"train.start_from: {file} cannot be read: {error}",
            hint="`giblet-hpc export RUN FILE` writes one",
        ) from error
    layout: Layout = {
        f"{MODEL}{name}": {"shape": shape, "axis": None, "pieces": [[file.name, 0, 0]]}
        for name, shape in shapes.items()
    }
    return Source(file.parent, layout, prefix=MODEL)
