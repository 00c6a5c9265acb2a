"""Figures of a training run: TensorBoard, metrics.jsonl and log lines."""

from __future__ import annotations

import io
import json
import logging
import os
import statistics
import warnings
from collections import deque
from pathlib import Path
from typing import Any

from giblet_hpc.files import write_text
from giblet_hpc.trust import append, read_text

logger = logging.getLogger(__name__)


class StepTimer:
    """How long steps take: what a supervisor reckons with."""

    def __init__(self) -> None:
        self._steps: deque[float] = deque(maxlen=50)
        self._waits: deque[float] = deque(maxlen=50)

    def step(self, seconds: float, waited: float) -> None:
        """Take note of a step, and of how much of it was spent waiting for data."""
        self._steps.append(seconds)
        self._waits.append(waited)

    @property
    def waited(self) -> float:
        """Mean seconds that the last steps have waited for data."""
        return sum(self._waits) / max(1, len(self._waits))

    def figures(self) -> dict[str, float]:
        """Return the median of the last steps, in seconds, and the share of waiting."""
        median = statistics.median(self._steps) if self._steps else 0.0
        share = sum(self._waits) / (sum(self._steps) or 1.0)
        return {"step_seconds": round(median, 4), "data_wait": round(share, 4)}


class Recorder:
    """Writes figures on rank 0; after a resume it first drops those of steps to be redone.

    Parameters
    ----------
    metrics : Path
        JSON lines file.
    tensorboard : Path
        Folder of the event files.
    from_step : int
        Step at which training goes on.
    """

    def __init__(self, metrics: Path, tensorboard: Path, *, from_step: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torch.utils.tensorboard.writer import SummaryWriter

        kept = [line for line in _lines(metrics) if json.loads(line)["step"] <= from_step]
        write_text(metrics, "".join(f"{line}\n" for line in kept))
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in kept]
        """All figures so far."""
        self._file = io.TextIOWrapper(append(metrics), encoding="utf-8")
        self._writer: Any = SummaryWriter(str(tensorboard), purge_step=from_step + 1)

    def add(self, kind: str, step: int, epoch: float, figures: dict[str, float]) -> None:
        """Record figures of a step: ``kind`` is `train` or `validation`."""
        row = {"kind": kind, "step": step, "epoch": round(epoch, 4), **figures}
        self.rows.append(row)
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        for name, value in figures.items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items()
                          if "/" not in name)  # fmt: skip
        logger.info("%s step %d epoch %.1f: %s", kind, step, epoch, shown)

    def close(self) -> None:
        """Flush and close the files."""
        self._file.close()
        self._writer.close()


def _lines(path: Path) -> list[str]:
    """Return the whole lines of a JSON lines file; a torn last one is left out."""
    if not path.is_file():
        return []
    lines = read_text(path).split("\n")
    good = []
    for line in lines:
        try:
            json.loads(line)
        except json.JSONDecodeError:
            continue
        good.append(line)
    return good
