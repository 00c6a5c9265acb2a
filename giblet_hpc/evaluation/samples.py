"""Pictures of what the model reconstructs and predicts at single test TRs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from giblet_hpc.evaluation.maps import new_figure
from giblet_hpc.splits import Block
from giblet_hpc.training.data import StudyArrays, Window
from giblet_hpc.training.loop import Trainer

SHOWN_CODEBOOKS = 2


def sample_trs(blocks: tuple[Block, ...], count: int) -> list[tuple[Block, int, int]]:
    """Return evenly spaced test TRs: block, TR in the run, row among all test TRs."""
    places = []
    row = 0
    for block in blocks:
        places += [(block, tr, row + tr - block.start) for tr in range(block.start, block.stop)]
        row += block.trs
    steps = np.linspace(0, len(places) - 1, min(count, len(places)) + 2)[1:-1]
    return [places[round(step)] for step in steps]


@torch.inference_mode()
def sample_figure(
    trainer: Trainer,
    study: StudyArrays,
    place: tuple[Block, int, int],
    predictions: NDArray[np.float32],
) -> Any:
    """Draw one TR: frames, codes, text features, and the scan against its prediction.

    Parameters
    ----------
    trainer : Trainer
    study : StudyArrays
    place : tuple
        From :func:`sample_trs`.
    predictions : ndarray, shape (subjects or 1, test trs, voxels)
    """
    block, tr, row = place
    batch = trainer.reader([Window(block, tr)])
    output = trainer.predict(batch)
    target = batch.bold.shape[1]
    made = {name: values[0, 0].float().cpu() for name, values in output.reconstruction.items()}
    shown = {name: values[0, -target].cpu() for name, values in batch.stimulus.items()}
    figure = new_figure(11, 2.6)
    axes = list(figure.subplots(1, len(made) + 1 + ("video" in made)))
    if "video" in made:
        _draw_frames(axes, shown["video"], made["video"])
    if "audio" in made:
        _draw_audio(axes.pop(0), shown["audio"], made["audio"], trainer.audio_frames(None).cpu())
    if "text" in made:
        axis = axes.pop(0)
        axis.plot(shown["text"], lw=0.8, label="shown")
        axis.plot(made["text"], lw=0.8, label="reconstructed")
        axis.set_title("text features", fontsize=8)
        axis.legend(fontsize=6)
    scan, predicted = study.runs[block.run].bold[0, tr], predictions[0, row]
    r = np.corrcoef(scan, predicted)[0, 1] if scan.std() > 0 and predicted.std() > 0 else 0.0
    axes[0].scatter(scan, predicted, s=2, alpha=0.4)
    axes[0].set_title(f"scan of {study.subjects[0]} vs prediction (r = {r:.2f})", fontsize=8)
    figure.suptitle(f"{block.run}, TR {tr}", fontsize=9)
    return figure


def _draw_frames(axes: list[Any], shown: torch.Tensor, made: torch.Tensor) -> None:
    for title, frame in (("frame", shown[0].float() / 255), ("reconstructed", made[0])):
        axis = axes.pop(0)
        axis.imshow(frame.clamp(0, 1).numpy())
        axis.set_title(title, fontsize=8)
        axis.axis("off")


def _draw_audio(axis: Any, shown: torch.Tensor, made: torch.Tensor, frames: torch.Tensor) -> None:
    if made.dim() == 3:  # logits (n, Q, codes)
        guessed, wanted = made.argmax(-1).T, shown[:, frames]
        title = f"audio codes at {len(frames)} frames"
    else:
        guessed, wanted, title = made, shown, "audio"
    for number in range(min(SHOWN_CODEBOOKS, len(wanted))):
        axis.plot(wanted[number], lw=0.8, color=f"C{number}")
        axis.plot(guessed[number], lw=0.8, ls="--", color=f"C{number}")
    axis.set_title(f"{title} (dashed: reconstructed)", fontsize=8)
