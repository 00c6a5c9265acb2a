"""Reads a preprocessed study for `giblet-hpc inspect`; rows stay in the store until asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from giblet_hpc.config.run import RunConfig
from giblet_hpc.diagnosis import weights
from giblet_hpc.diagnosis.align_study import Alignment
from giblet_hpc.diagnosis.data import DataCheck
from giblet_hpc.diagnosis.files import FileCheck
from giblet_hpc.errors import ConfigError
from giblet_hpc.files import read_json
from giblet_hpc.findings import Finding
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.plans import study_size
from giblet_hpc.runs import checkpoints
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.splits import load_folds, outer_folds
from giblet_hpc.store import FeatureStore
from giblet_hpc.survey import survey
from giblet_hpc.training import checkpoint
from giblet_hpc.training.feed import StudyArrays, load_study
from giblet_hpc.training.network_size import meta_model


def alignment_of(config: RunConfig, paths: RunPaths) -> Alignment:
    """Return what looks whether stimulus and scans fit in time.

    Parameters
    ----------
    config : RunConfig
    paths : RunPaths
        Of a run whose preprocess is complete.
    """
    study = _study(config, paths)
    assert config.study.store is not None
    store = FeatureStore(config.study.store)
    means = {
        run: {
            name: store.read(f"stats/{name}/{run}")[0].astype(np.float64)
            for name, there in zip(study.subjects, arrays.valid, strict=True)
            if there.any()
        }
        for run, arrays in study.runs.items()
    }
    folds = outer_folds(load_folds(paths.split))
    return Alignment(config, study, modalities_of(config.features), means=means, folds=folds)


def data_of(
    config: RunConfig,
    paths: RunPaths,
    *,
    ranks: int,
    step_seconds: float = 0.0,
    whole: bool = False,
) -> DataCheck:
    """Return what looks at the arrays.

    Parameters
    ----------
    config : RunConfig
    paths : RunPaths
        Of a run whose preprocess is complete.
    ranks : int
        That training would have.
    step_seconds : float
        Of a step; 0 where it is not known.
    whole : bool
        Whether everything is read, of a large study too.
    """
    return DataCheck(
        config, _study(config, paths), modalities_of(config.features),
        folds=outer_folds(load_folds(paths.split)), ranks=ranks, step_seconds=step_seconds,
        whole=whole,
    )  # fmt: skip


def files_of(config: RunConfig, *, ranks: int) -> FileCheck:
    """Return what looks at a study's files, before preprocess.

    Parameters
    ----------
    config : RunConfig
    ranks : int
        That training would have.

    Raises
    ------
    DataError
        When a file is missing or contradicts the others.
    """
    return FileCheck(survey(config), ranks=ranks, step_seconds=0.0)


@dataclass(frozen=True)
class CheckpointCheck:
    """Looks at a checkpoint's tensors.

    Parameters
    ----------
    rows : sequence of dict
        Figures of each, from `weights.layers`.
    step : int
    against : int, optional
        The other checkpoint's step.
    """

    rows: Sequence[Mapping[str, Any]]
    step: int
    against: int | None

    def findings(self) -> Iterator[Finding]:
        """Yield what is wrong."""
        yield from weights.findings(self.rows)

    def facts(self) -> dict[str, Any]:
        """Return the figures of each tensor."""
        return {"step": self.step, "against": self.against, "tensors": list(self.rows)}


def checkpoint_of(
    config: RunConfig, paths: RunPaths, *, step: int | None, against: int | None, fold: str
) -> CheckpointCheck:
    """Return what looks at a checkpoint, by default the newest, beside the one before.

    Raises
    ------
    ConfigError
        When there is no such checkpoint.
    """
    folder = paths.checkpoints(fold)
    every = [checkpoints.step_of(path) for path in checkpoints.committed(folder)]
    if not every:
        raise ConfigError(f"run {paths.name} has no checkpoint yet", hint=paths.command("status"))
    chosen = max(every) if step is None else step
    earlier = [one for one in every if one < chosen]
    other = against if against is not None else max(earlier, default=None)
    source, _ = checkpoint.load(checkpoints.of_step(folder, chosen))
    before = None
    if other is not None:
        before, _ = checkpoint.load(checkpoints.of_step(folder, other))
    model = meta_model(config, study_size.of_store(config, read_json(paths.inputs)))
    names = [name for name, _ in model.named_parameters()]
    return CheckpointCheck(list(weights.layers(source, names, before)), chosen, other)


def _study(config: RunConfig, paths: RunPaths) -> StudyArrays:
    inputs: dict[str, Any] = read_json(paths.inputs)
    return load_study(config, inputs, memory=None, per_subject=True)
