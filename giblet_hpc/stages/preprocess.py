"""Preprocess: from a study's files to its feature store, shard by shard."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.config import RunConfig
from giblet_hpc.errors import DataError
from giblet_hpc.extract import bold
from giblet_hpc.files import write_json
from giblet_hpc.log import progress
from giblet_hpc.runs import Heartbeat, RunPaths
from giblet_hpc.splits import make_folds, save_folds
from giblet_hpc.stages import plan as planning
from giblet_hpc.stages import writers
from giblet_hpc.store import FeatureStore, Part

logger = logging.getLogger(__name__)


def run(config: RunConfig, paths: RunPaths, *, part: str = "", rebuild: bool = False) -> None:
    """Write what is missing from the study's store; at the end, the run's split and inputs.

    Parameters
    ----------
    config : RunConfig
    paths : RunPaths
    part : str
        `plan`: only lay out the store, with the mask. `subject-NAME` or `RUN-MODALITY`: only that
        part, of a store that is laid out. By default everything.
    rebuild : bool
        Replace parts that were made with other settings, instead of refusing.

    Raises
    ------
    GibletError
        When an input is bad, or the store was made with other settings.
    """
    work = Preprocess(config, paths, part=part, rebuild=rebuild)
    if part == "plan":
        return
    for subject, run_name in work.scans:
        if part in ("", f"subject-{subject}"):
            work.write_scans(subject, run_name)
    for stimulus in work.stimulus:
        _, run_name, modality = stimulus.name.split("/")
        if part in ("", f"{run_name}-{modality}"):
            work.write_stimulus(stimulus, run_name, modality)
    if not part:
        work.finish()


class Preprocess:
    """The store of a study, laid out, with its mask; and what fills it.

    Parameters
    ----------
    config : RunConfig
    paths : RunPaths
    part : str
        The part that this process makes; all when empty.
    rebuild : bool
        Replace parts that were made with other settings, instead of refusing.
    """

    def __init__(self, config: RunConfig, paths: RunPaths, *, part: str, rebuild: bool) -> None:
        assert config.study.store is not None
        self._config, self._paths = config, paths
        self._beat = Heartbeat(paths, "preprocess", part=part)
        self._study = planning.survey(config)
        self._folds = make_folds(config.split, config.study, self._study.lengths)
        self._store = FeatureStore(config.study.store)
        self._store.plan([], rebuild=rebuild)
        digests = planning.Digests(self._store)
        self.stimulus = planning.stimulus_parts(config, self._study, digests)
        self._mask_part = planning.mask_part(config, self._study, digests)
        self._store.plan([*self.stimulus, self._mask_part], rebuild=rebuild)
        self._mask = _mask(config, self._study, self._store, self._mask_part)
        self.scans = planning.bold_parts(
            config, self._study, digests, mask=self._mask_part, voxels=int(self._mask.sum())
        )
        self._store.plan(itertools.chain(*self.scans.values()), rebuild=rebuild)
        self._regions = _regions(
            config,
            self._study,
            self._store,
            mask=self._mask,
            mask_part=self._mask_part,
            rebuild=rebuild,
        )
        self._codebooks = _write_codebooks(config, self._store, rebuild=rebuild)

    def write_scans(self, subject: str, run_name: str) -> None:
        """Write a subject's scores of one run."""
        self._beat.beat(phase=f"bold {subject} {run_name}")
        writers.write_scans(
            self._config,
            self._store,
            self.scans[subject, run_name],
            mask=self._mask,
            subject=subject,
            run_name=run_name,
        )

    def write_stimulus(self, part: Part, run_name: str, modality: str) -> None:
        """Write one modality of one run."""
        self._beat.beat(phase=f"{modality} {run_name}")
        write = {
            "video": writers.write_video,
            "audio": writers.write_audio,
            "text": writers.write_text,
        }
        (scan_run,) = (one for one in self._config.study.runs if one.name == run_name)
        write[modality](self._config, scan_run, self._study, self._store, part, self._beat)

    def finish(self) -> None:
        """Write down what the run will read: its split, and the parts with their fingerprints."""
        paths = self._paths
        before = paths.data_digest() if paths.inputs.is_file() and paths.split.is_file() else ""
        save_folds(self._folds, paths, purge_trs=self._config.split.purge_trs)
        made = [*self.stimulus, self._mask_part, *itertools.chain(*self.scans.values())]
        made += filter(None, (self._regions, self._codebooks))
        fingerprints = {part.name: part.fingerprint for part in made}
        inputs = {"subjects": list(self._study.subjects), "parts": fingerprints}
        write_json(paths.inputs, inputs)
        if before and before != paths.data_digest() and (aside := paths.set_aside()):
            logger.warning("the data have changed; results of the old ones are now in %s", aside)
        lengths = dict(self._study.lengths)
        logger.info("store %s: %d voxels, %s", self._store.path, self._mask.sum(), lengths)


def _mask(
    config: RunConfig, study: planning.StudyPlan, store: FeatureStore, part: Part
) -> NDArray[np.bool_]:
    if store.missing(part):
        if config.bold.mask == "vote":
            votes = np.zeros(study.grid.shape, dtype=np.float32)
            subjects = progress(study.subjects, label="mask", total=len(study.subjects))
            for subject in subjects:
                scans = bold.open_scans(subject, config.study, config.bold)
                volumes = scans.volumes(config.study.runs[0].name)
                votes += bold.vote_mask(volumes, config.bold)
            mask = votes / len(study.subjects) >= config.bold.vote_threshold
        else:
            mask = bold.load_labels(config.study.root / config.bold.mask, study.grid) > 0
        if not mask.any():
            raise DataError("the brain mask is empty", hint="check bold.mask")
        store.write(part, mask.astype(np.uint8))
    return store.read("mask").astype(bool)


def _regions(
    config: RunConfig,
    study: planning.StudyPlan,
    store: FeatureStore,
    *,
    mask: NDArray[np.bool_],
    mask_part: Part,
    rebuild: bool,
) -> Part | None:
    if config.bold.regions is None:
        return None
    path = config.study.root / config.bold.regions
    labels = bold.load_labels(path, study.grid)
    names: dict[str, str] = {}
    if config.bold.region_names:
        names = _region_names(config.study.root / config.bold.region_names)
    part = Part(
        "regions",
        (int(mask.sum()),),
        "int32",
        {"labels": planning.Digests(store).of(path), "mask": mask_part.fingerprint, "names": names},
        {"names": names},
    )
    store.plan([part], rebuild=rebuild)
    store.write(part, labels[mask])
    return part


def _region_names(path: Path) -> dict[str, str]:
    import pandas as pd

    from giblet_hpc.files import require_file

    table = pd.read_csv(require_file(path, what="region table"), sep="\t")
    if not {"label", "name"} <= set(table.columns):
        raise DataError(f"{path} needs the columns label and name; it has {list(table.columns)}")
    return {str(label): str(name) for label, name in zip(table.label, table.name, strict=True)}


def _write_codebooks(config: RunConfig, store: FeatureStore, *, rebuild: bool) -> Part | None:
    """Write the vectors that the audio codes stand for."""
    options = config.features.audio
    if options is None or options.kind != "codes":
        return None
    part = planning.codebooks_part(options, planning.Digests(store))
    store.plan([part], rebuild=rebuild)
    if store.missing(part):
        from giblet_hpc.extract import codec

        store.write(part, codec.make_codec(options).codebooks())
    return part
