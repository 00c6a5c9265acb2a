"""Preprocess: from a study's files to its feature store, shard by shard."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc import timing
from giblet_hpc.config import RunConfig, ScanRun
from giblet_hpc.errors import DataError
from giblet_hpc.extract import audio, bold, codec, text, video
from giblet_hpc.files import write_json
from giblet_hpc.log import progress
from giblet_hpc.runs import Heartbeat, RunPaths
from giblet_hpc.splits import make_folds, save_folds
from giblet_hpc.stages import plan as planning
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
        _regions(
            config,
            self._study,
            self._store,
            mask=self._mask,
            mask_part=self._mask_part,
            rebuild=rebuild,
        )
        _write_codebooks(config, self._store, rebuild=rebuild)

    def write_scans(self, subject: str, run_name: str) -> None:
        """Write a subject's scores of one run."""
        self._beat.beat(phase=f"bold {subject} {run_name}")
        _write_scans(
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
        writers = {"video": _write_video, "audio": _write_audio, "text": _write_text}
        (scan_run,) = (one for one in self._config.study.runs if one.name == run_name)
        writers[modality](self._config, scan_run, self._study, self._store, part, self._beat)

    def finish(self) -> None:
        """Write down what the run will read: its split, and the parts with their fingerprints."""
        save_folds(self._folds, self._paths, purge_trs=self._config.split.purge_trs)
        made = [*self.stimulus, self._mask_part, *itertools.chain(*self.scans.values())]
        fingerprints = {part.name: part.fingerprint for part in made}
        inputs = {"subjects": list(self._study.subjects), "parts": fingerprints}
        write_json(self._paths.inputs, inputs)
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
) -> None:
    if config.bold.regions is None:
        return
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


def _region_names(path: Path) -> dict[str, str]:
    import pandas as pd

    from giblet_hpc.files import require_file

    table = pd.read_csv(require_file(path, what="region table"), sep="\t")
    if not {"label", "name"} <= set(table.columns):
        raise DataError(f"{path} needs the columns label and name; it has {list(table.columns)}")
    return {str(label): str(name) for label, name in zip(table.label, table.name, strict=True)}


def _write_scans(
    config: RunConfig,
    store: FeatureStore,
    parts: tuple[Part, Part, Part],
    *,
    mask: NDArray[np.bool_],
    subject: str,
    run_name: str,
) -> None:
    scores_part, valid_part, statistics_part = parts
    if not any(store.missing(part) for part in parts):
        return
    scans = bold.open_scans(subject, config.study, config.bold)
    path = bold.scan_files(subject, config.study, config.bold)[run_name]
    courses = np.ascontiguousarray(scans.volumes(run_name)[mask].T)
    bad = int((~np.isfinite(courses)).any(axis=0).sum())
    if bad:
        raise DataError(
            f"{path}: {bad} voxels inside the mask hold NaN or infinity in run {run_name}",
            hint="mask them out (bold.mask), or repair the file",
        )
    trs = scores_part.shape[0]
    valid = bold.valid_trs(courses, trs)
    if trs - valid > config.bold.max_missing_trs:
        raise DataError(
            f"{path}: only {valid} of {trs} TRs of run {run_name} hold data",
            hint="leave the subject out with study.subjects, or raise bold.max_missing_trs",
        )
    if valid < trs:
        logger.info("subject %s run %s: the last %d TRs hold no data and are left out",
                    subject, run_name, trs - valid)  # fmt: skip
    confounds = None
    if config.bold.confounds:
        table = planning.confounds_path(config, subject, run_name)
        rows = bold.read_confounds(table, config.bold.confound_columns)
        if "{run}" not in config.bold.confounds:
            rows = rows[slice(*planning.rows_in_file(config, run_name))]
        if len(rows) < valid:
            raise DataError(f"{table} has {len(rows)} rows for the {valid} TRs of run {run_name}")
        confounds = rows[:valid]
    cleaned = bold.clean(courses[:valid], bold=config.bold, tr=config.study.tr, confounds=confounds)
    scores = np.zeros(scores_part.shape, dtype=np.float32)
    scores[:valid], statistics = bold.standardise(cleaned)
    store.write(statistics_part, statistics)
    store.write(valid_part, (np.arange(trs) < valid).astype(np.uint8))
    store.write(scores_part, scores)


def _write_video(
    config: RunConfig,
    scan_run: ScanRun,
    study: planning.StudyPlan,
    store: FeatureStore,
    part: Part,
    beat: Heartbeat,
) -> None:
    missing = store.missing(part)
    if not missing:
        return
    options = config.features.video
    assert options is not None and scan_run.film is not None
    times = timing.frame_times(
        trs=part.shape[0], tr=config.study.tr, fps=study.fps, skip=options.frame_skip
    )
    first = part.rows(missing[0]).start
    wanted = times[first : part.rows(missing[-1]).stop]
    frames = video.sample_frames(
        config.study.root / scan_run.film,
        wanted.reshape(-1) + scan_run.film_start,
        height=options.height,
        width=options.width,
    )
    rows = progress(
        _batched(frames, part.shape[1]),
        label=f"video {scan_run.name}",
        total=len(wanted),
    )
    for shard, values in _by_shard(rows, part, first):
        if shard in missing:
            store.write_shard(part, shard, values)
            beat.beat(phase=f"video {scan_run.name}")


def _batched(frames: Iterator[NDArray[np.uint8]], size: int) -> Iterator[NDArray[np.uint8]]:
    """Stack ``size`` frames to a row."""
    while batch := list(itertools.islice(frames, size)):
        yield np.stack(batch)


def _by_shard(
    rows: Iterator[NDArray[Any]], part: Part, first: int
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Collect consecutive rows from row ``first`` on, itself a shard's start, into shards."""
    shard = first // part.shard_rows
    while True:
        span = part.rows(shard)
        values = list(itertools.islice(rows, span.stop - span.start))
        if len(values) < span.stop - span.start:
            return
        yield shard, np.stack(values)
        shard += 1
        if shard == part.shards:
            # Lets the progress display finish.
            next(rows, None)
            return


def _write_audio(
    config: RunConfig,
    scan_run: ScanRun,
    study: planning.StudyPlan,
    store: FeatureStore,
    part: Part,
    beat: Heartbeat,
) -> None:
    missing = store.missing(part)
    if not missing:
        return
    options = config.features.audio
    assert options is not None and scan_run.film is not None
    trs, rows, count = part.shape
    starts, _ = timing.code_starts(trs=trs, tr=config.study.tr, rate=audio.FRAME_RATE)
    spans = {s: (starts[part.rows(s)][0], starts[part.rows(s)][-1] + count) for s in missing}
    seconds = (starts[-1] + count) / audio.FRAME_RATE
    chunks = audio.sound_chunks(
        config.study.root / scan_run.film,
        start=scan_run.film_start,
        seconds=seconds,
        chunk=options.chunk_seconds,
        context=options.context_seconds,
    )
    encoder = codec.make_encoder(options)
    columns = np.zeros((rows, starts[-1] + count), dtype=part.dtype)
    total = -(-len(columns[0]) // max(1, round(options.chunk_seconds * audio.FRAME_RATE)))
    done = 0
    for sound, skip in progress(chunks, label=f"audio {scan_run.name}", total=total):
        width = (len(sound) - skip) // audio.HOP
        if any(a < done + width and done < b for a, b in spans.values()):
            encoded = encoder(sound)
            columns[:, done : done + width] = encoded[
                :, skip // audio.HOP : skip // audio.HOP + width
            ]
        done += width
        beat.beat(phase=f"audio {scan_run.name}")
        for shard in [s for s, (_, end) in spans.items() if end <= done]:
            del spans[shard]
            window = starts[part.rows(shard), None] + np.arange(count)[None]
            store.write_shard(part, shard, columns[:, window].transpose(1, 0, 2))


def _write_codebooks(config: RunConfig, store: FeatureStore, *, rebuild: bool) -> None:
    """Write the vectors that the audio codes stand for."""
    options = config.features.audio
    if options is None or options.kind != "codes":
        return
    part = planning.codebooks_part(options)
    store.plan([part], rebuild=rebuild)
    if store.missing(part):
        store.write(part, codec.make_codec(options).codebooks())


def _write_text(
    config: RunConfig,
    scan_run: ScanRun,
    study: planning.StudyPlan,
    store: FeatureStore,
    part: Part,
    beat: Heartbeat,
) -> None:
    if not store.missing(part):
        return
    options = config.features.text
    assert options is not None
    segments = study.segments[scan_run.name]
    if options.encoder == text.LSA:
        words = part.attributes["words"]
        rows = text.word_counts(segments, part.shape[0], words, forward_fill=options.forward_fill)
    else:
        rows = text.place_embeddings(
            segments,
            text.embed([segment.text for segment in segments], options),
            part.shape[0],
            slots=options.segments,
            forward_fill=options.forward_fill,
        )
    store.write(part, rows)
    beat.beat(phase=f"text {scan_run.name}")
