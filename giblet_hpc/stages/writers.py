"""From extracted features to committed shards: rows of TRs, part by part."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc import timing
from giblet_hpc.config import RunConfig, ScanRun
from giblet_hpc.errors import DataError
from giblet_hpc.extract import audio, bold, text, video
from giblet_hpc.log import progress
from giblet_hpc.runs import Heartbeat
from giblet_hpc.stages import plan as planning
from giblet_hpc.store import FeatureStore, Part

logger = logging.getLogger(__name__)


def write_scans(
    config: RunConfig,
    store: FeatureStore,
    parts: tuple[Part, Part, Part],
    *,
    mask: NDArray[np.bool_],
    subject: str,
    run_name: str,
) -> None:
    """Write a subject's standardised scans of one run, which TRs are valid, and the statistics."""
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


def write_video(
    config: RunConfig,
    scan_run: ScanRun,
    study: planning.StudyPlan,
    store: FeatureStore,
    part: Part,
    beat: Heartbeat,
) -> None:
    """Write the missing shards of a run's frames, in one pass over the film."""
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


def write_audio(
    config: RunConfig,
    scan_run: ScanRun,
    study: planning.StudyPlan,
    store: FeatureStore,
    part: Part,
    beat: Heartbeat,
) -> None:
    """Write the missing shards of a run's codes or energies, chunk by chunk."""
    missing = store.missing(part)
    if not missing:
        return
    options = config.features.audio
    assert options is not None and scan_run.film is not None
    trs, rows, count = part.shape
    starts, _ = timing.code_starts(trs=trs, tr=config.study.tr, rate=audio.FRAME_RATE)
    spans = {s: (starts[part.rows(s)][0], starts[part.rows(s)][-1] + count) for s in missing}
    seconds = (starts[-1] + count) / audio.FRAME_RATE
    encoder = audio.make_encoder(options)
    chunks = audio.sound_chunks(
        config.study.root / scan_run.film,
        start=scan_run.film_start,
        seconds=seconds,
        chunk=options.chunk_seconds,
        context=options.context_seconds,
        ahead=encoder.ahead,
    )
    columns = np.zeros((rows, starts[-1] + count), dtype=part.dtype)
    total = -(-len(columns[0]) // max(1, round(options.chunk_seconds * audio.FRAME_RATE)))
    done = 0
    for sound, skip, size in progress(chunks, label=f"audio {scan_run.name}", total=total):
        width = size // audio.HOP
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


def write_text(
    config: RunConfig,
    scan_run: ScanRun,
    study: planning.StudyPlan,
    store: FeatureStore,
    part: Part,
    beat: Heartbeat,
) -> None:
    """Write a run's word counts or embeddings."""
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
