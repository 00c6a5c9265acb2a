"""Preprocess: from a study's files to its feature store, shard by shard."""

from __future__ import annotations

import itertools
import logging

from giblet_hpc.arrays import ArraySpec
from giblet_hpc.config.run import RunConfig
from giblet_hpc.config.study import ScanRun
from giblet_hpc.digests import Digests
from giblet_hpc.evaluation import methods
from giblet_hpc.files import write_json
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.problems import require_sound
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.runs.progress import Progress
from giblet_hpc.scans import courses, masks
from giblet_hpc.splits import make_folds, save_folds
from giblet_hpc.store import FeatureStore
from giblet_hpc.survey import survey

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
        Replace arrays that were made with other settings, instead of refusing.

    Raises
    ------
    GibletError
        When an input is bad, or the store was made with other settings.
    """
    work = Preprocess(config, paths, part=part, rebuild=rebuild)
    if part == "plan":
        return
    for subject, run_name in work.courses:
        if part in ("", f"subject-{subject}"):
            work.write_courses(subject, run_name)
    for scan_run, modality in itertools.product(config.study.runs, work.modalities):
        if part in ("", f"{scan_run.name}-{modality}"):
            work.write_stimulus(scan_run, modality)
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
        Replace arrays that were made with other settings, instead of refusing.
    """

    def __init__(self, config: RunConfig, paths: RunPaths, *, part: str, rebuild: bool) -> None:
        assert config.study.store is not None
        self._config, self._paths = config, paths
        self._progress = Progress(paths, "preprocess", part=part)
        if part in ("", "plan"):
            require_sound(config)
        self._survey = facts = survey(config)
        self._folds = make_folds(config.split, config.study, facts.lengths)
        self._store = store = FeatureStore(config.study.store)
        store.plan([], rebuild=rebuild)
        digests = Digests(store)
        self.modalities = modalities_of(config.features)
        self._stimulus = {
            (scan_run.name, name): modality.array(facts, scan_run, digests)
            for scan_run in config.study.runs
            for name, modality in self.modalities.items()
        }
        self._mask_array = masks.mask_array(facts.scans, digests)
        store.plan([*self._stimulus.values(), self._mask_array], rebuild=rebuild)
        self._mask = masks.write_mask(facts.scans, store=store, spec=self._mask_array)
        voxels = int(self._mask.sum())
        self.courses = courses.course_arrays(
            facts.scans, digests, mask=self._mask_array, voxels=voxels
        )
        store.plan(itertools.chain(*self.courses.values()), rebuild=rebuild)
        self._extra = self._write_extra(digests, voxels, rebuild=rebuild)

    def _write_extra(self, digests: Digests, voxels: int, *, rebuild: bool) -> list[ArraySpec]:
        """Write what is small and belongs to no run; return its arrays."""
        scans, store, extra = self._survey.scans, self._store, []
        regions = masks.regions_array(scans, digests, mask=self._mask_array, voxels=voxels)
        if regions is not None:
            store.plan([regions], rebuild=rebuild)
            masks.write_regions(scans, store=store, spec=regions, mask=self._mask)
            extra.append(regions)
        for modality in self.modalities.values():
            if shared := modality.shared_array(digests):
                store.plan([shared], rebuild=rebuild)
                if store.missing(shared):
                    store.write(shared, modality.shared_values())
                extra.append(shared)
        return extra

    def write_courses(self, subject: str, run_name: str) -> None:
        """Write a subject's scans of one run."""
        self._progress.note(phase=f"bold {subject} {run_name}")
        courses.write_courses(
            self._survey.scans,
            self._store,
            self.courses[subject, run_name],
            mask=self._mask,
            subject=subject,
            run_name=run_name,
        )

    def write_stimulus(self, scan_run: ScanRun, modality: str) -> None:
        """Write one modality of one run."""
        phase = f"{modality} {scan_run.name}"
        self._progress.note(phase=phase)
        self.modalities[modality].write(
            self._survey,
            scan_run,
            spec=self._stimulus[scan_run.name, modality],
            store=self._store,
            note=lambda: self._progress.note(phase=phase),
        )

    def finish(self) -> None:
        """Write down what the run will read: its split, and the arrays with their fingerprints."""
        paths = self._paths
        before = paths.data_digest() if paths.inputs.is_file() and paths.split.is_file() else ""
        save_folds(self._folds, paths.split, purge_trs=self._config.purge_trs)
        arrays = [*self._stimulus.values(), self._mask_array, *self._extra]
        arrays += itertools.chain(*self.courses.values())
        fingerprints = {spec.name: spec.fingerprint for spec in arrays}
        content = {spec.name: self._store.content(spec.name) for spec in arrays}
        inputs = {"arrays": fingerprints, "content": content}
        write_json(paths.inputs, {"subjects": list(self._survey.subjects), **inputs})
        if before and before != paths.data_digest() and (aside := paths.set_aside()):
            logger.warning("the data have changed; results of the old ones are now in %s", aside)
        lengths = dict(self._survey.lengths)
        methods.save(paths, "preprocess", methods.of_preprocess(
            self._config, self.modalities, subjects=len(self._survey.subjects), lengths=lengths,
            voxels=int(self._mask.sum()), unit=self._survey.scans.space.unit,
            rule=masks.voting(self._config.bold, self._survey.scans.space),
        ))  # fmt: skip
        logger.info("store %s: %d voxels, %s", self._store.path, self._mask.sum(), lengths)
