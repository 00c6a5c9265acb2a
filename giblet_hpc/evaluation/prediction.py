"""Running a trained fold over its test TRs, on all ranks, results in the order of time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from giblet_hpc.files import write_with
from giblet_hpc.models.shapes import Batch, Output
from giblet_hpc.splits import Block
from giblet_hpc.training import checkpoint
from giblet_hpc.training.data import Window, covering_windows
from giblet_hpc.training.loop import Trainer


def load_best(trainer: Trainer, folder: Path) -> dict[str, Any]:
    """Put the best checkpoint's weights into the trainer's model; return its manifest."""
    state, manifest = checkpoint.load(checkpoint.best(folder), mmap=True)
    checkpoint.require_data(manifest, trainer.data)
    trainer.model.load_state_dict(state["model"])
    trainer.model.eval()
    return manifest


@torch.inference_mode()
def predict_test(trainer: Trainer, folder: Path) -> None:
    """Predict the scans of all test TRs and measure the reconstructions.

    Each rank predicts every ``world_size``-th window; rank 0 then puts the rows in the order of
    the test blocks' TRs.

    Parameters
    ----------
    trainer : Trainer
        With the weights to evaluate.
    folder : Path
        Receives ``predictions.npy`` (subjects, trs, voxels; one subject where the model does not
        tell them apart) and ``reconstruction.npz`` (mean errors, where 1 is predicting the
        training mean).
    """
    world = trainer.world
    windows = covering_windows(trainer.fold.test, trainer.config.train.window_trs)
    names = list(trainer.shapes.modalities)
    totals = torch.zeros(len(names) + 3, dtype=torch.float64, device=world.device)
    rows = []
    for window in windows[world.rank :: world.size]:
        batch = trainer.reader([window])
        output = trainer.predict(batch)
        rows.append(output.bold[0].float().transpose(0, 1).cpu().numpy())  # (S, L, V)
        totals += _reconstruction_sums(trainer, output, batch, names)
    part = np.stack(rows) if rows else np.zeros((0,), np.float32)
    write_with(folder / f"part-{world.rank}.npy", lambda handle: np.save(handle, part))
    world.sum(totals)
    world.wait()
    if world.is_main:
        means = (totals[:-3] / totals[-3]).tolist()
        figures = dict(zip(names, means, strict=True))
        if trainer.shapes.codes:
            figures["audio_top1"] = float(totals[-2] / totals[-3])
            figures["audio_top1_unigram"] = float(totals[-1] / totals[-3])
        write_with(
            folder / "reconstruction.npz",
            lambda handle: np.savez(handle, **figures),
        )
        _assemble(folder, windows, trainer.fold.test, world.size)
    world.wait()


def _reconstruction_sums(
    trainer: Trainer, output: Output, batch: Batch, names: list[str]
) -> torch.Tensor:
    """Return error sums over TRs, the count of TRs, and top-1 hits of the model and unigram."""
    frames = trainer.audio_frames(None)
    errors = trainer.losses.reconstruction_errors(output, batch, frames)
    there = batch.inside[:, -batch.bold.shape[1] :]
    trs = there.sum()
    hits = torch.zeros(2, dtype=torch.float64, device=trs.device)
    if trainer.shapes.codes and output.reconstruction["audio"].dim() == 5:
        wanted = batch.stimulus["audio"][:, -batch.bold.shape[1] :][..., frames].transpose(2, 3)
        best = output.reconstruction["audio"].argmax(-1)
        usual = trainer.usual_codes().to(wanted.device)
        for number, guess in enumerate((best, usual.expand_as(best))):
            hits[number] = (guess == wanted).double().mean((2, 3))[there].sum()
    sums = [errors[name].double() * trs for name in names]
    return torch.stack([*sums, trs.double(), *hits])


def _assemble(
    folder: Path, windows: list[Window], blocks: tuple[Block, ...], world_size: int
) -> None:
    """Join the ranks' windows to one array in the order of the blocks' TRs."""
    parts = [np.load(folder / f"part-{rank}.npy") for rank in range(world_size)]
    ordered: list[NDArray[np.float32]] = []
    for number, window in enumerate(windows):
        predicted = parts[number % world_size][number // world_size]
        ordered.append(predicted[:, : window.block.stop - window.start])
    predictions = np.concatenate(ordered, axis=1)
    assert predictions.shape[1] == sum(block.trs for block in blocks)
    write_with(folder / "predictions.npy", lambda handle: np.save(handle, predictions))
    for rank in range(world_size):
        (folder / f"part-{rank}.npy").unlink()
