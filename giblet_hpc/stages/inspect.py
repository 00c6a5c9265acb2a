"""Reads a preprocessed study for `giblet-hpc inspect`; rows stay in the store until asked for."""

from __future__ import annotations

from typing import Any

import numpy as np

from giblet_hpc.config.run import RunConfig
from giblet_hpc.diagnosis.align_study import Alignment
from giblet_hpc.diagnosis.data import DataCheck
from giblet_hpc.files import read_json
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.splits import load_folds
from giblet_hpc.store import FeatureStore
from giblet_hpc.training.feed import StudyArrays, load_study


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
            name: store.read(f"stats/{name}/{run}")[0].astype(np.float64) for name in study.subjects
        }
        for run in study.runs
    }
    folds = load_folds(paths.split)
    return Alignment(config, study, modalities_of(config.features), means=means, folds=folds)


def data_of(config: RunConfig, paths: RunPaths, *, ranks: int) -> DataCheck:
    """Return what looks at the arrays.

    Parameters
    ----------
    config : RunConfig
    paths : RunPaths
        Of a run whose preprocess is complete.
    ranks : int
        That training would have.
    """
    return DataCheck(
        config, _study(config, paths), modalities_of(config.features),
        folds=load_folds(paths.split), ranks=ranks,
    )  # fmt: skip


def _study(config: RunConfig, paths: RunPaths) -> StudyArrays:
    inputs: dict[str, Any] = read_json(paths.inputs)
    return load_study(config, inputs, memory=None, per_subject=True)
