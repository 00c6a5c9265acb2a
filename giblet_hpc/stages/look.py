"""Puts a checkpoint of a run and its study together for a look at what it makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import ConfigError
from giblet_hpc.evaluation.look import choose_windows, look
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.stages.with_checkpoint import with_checkpoint

Part = Literal["validation", "test", "train"]


def look_at(
    config: RunConfig,
    paths: RunPaths,
    *,
    step: int | None,
    fold: str,
    part: Part,
    samples: int,
    device: str,
    folder: Path | None,
    note: Callable[[int], None],
) -> tuple[Path, dict[str, Any]]:
    """Write what a checkpoint makes of some windows.

    Parameters
    ----------
    config : RunConfig
    paths : RunPaths
        Of a run whose preprocess is complete; it may be training.
    step : int, optional
        Of the checkpoint; by default the newest.
    fold : str
        By default the first.
    part : {"validation", "test", "train"}
        Of the split. Who looks at the test TRs and changes settings has no test any more.
    samples : int
        Windows.
    device : str
    folder : Path, optional
        By default one in the run's folder.
    note : callable
        Called with the number of windows that are done.

    Returns
    -------
    Path
    dict
        From `giblet_hpc.evaluation.look.look`.

    Raises
    ------
    ConfigError
        When there is no such checkpoint, device or part.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("this machine has no GPU that torch can use", hint="--device cpu")
    loaded = with_checkpoint(config, paths, step=step, fold=fold, device=torch.device(device))
    blocks = getattr(loaded.fold, part)
    if not blocks:
        raise ConfigError(f"the split has no {part} TRs", hint="--on test, or --on train")
    target = folder or paths.root / "looks" / f"step-{loaded.step}-{part}"
    windows = choose_windows(blocks, config.train.window_trs, samples)
    said = {"run": paths.name, "step": loaded.step, "fold": loaded.fold.name, "part": part}
    figures = look(loaded.predictor, loaded.study, windows, target, said=said, note=note)
    return target, figures
