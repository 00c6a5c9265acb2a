"""What preprocess has to make: the runs' lengths, and the parts of the store with provenance."""

from __future__ import annotations

import ast
import inspect
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from giblet_hpc import timing
from giblet_hpc.config import AudioFeatures, RunConfig, ScanRun
from giblet_hpc.config_io import plain
from giblet_hpc.errors import DataError
from giblet_hpc.extract import annotations as sheets
from giblet_hpc.extract import audio, bold, text, video
from giblet_hpc.files import read_json, sha256_file, sha256_json, write_json
from giblet_hpc.store import RECORDS, FeatureStore, Part
from giblet_hpc.subjects import find_subjects

logger = logging.getLogger(__name__)
AUDIO_SHARD_TRS = 128
WRITERS = Path(__file__).with_name("writers.py")


@dataclass(frozen=True)
class StudyPlan:
    """The facts of a study that its parts depend on."""

    subjects: tuple[str, ...]
    """Names of the subjects."""
    lengths: Mapping[str, int]
    """TRs of each run, after cutting film and scans to the same length."""
    grid: bold.Grid
    """The voxel grid of the scans."""
    fps: float
    """Frames a second that are sampled; 0 without films."""
    segments: Mapping[str, list[timing.Segment]]
    """Annotated segments of each run; empty without text."""


def survey(config: RunConfig) -> StudyPlan:
    """Look at every input file's header and settle the runs' lengths.

    Raises
    ------
    DataError
        When a file is missing or contradicts the others.
    """
    _require_files(config)
    subjects = find_subjects(config.study, config.bold)
    scans = {name: bold.open_scans(name, config.study, config.bold) for name in subjects}
    first = scans[subjects[0]]
    grid = bold.grid_of(next(iter(first.images.values())))
    for name in subjects:
        for run, path in bold.scan_files(name, config.study, config.bold).items():
            bold.check_grid(path, scans[name].images[run], grid)
    films = {
        run.name: video.probe(config.study.root / run.film) for run in config.study.runs if run.film
    }
    lengths = {
        run.name: _length(config, run, scans=scans, film=films.get(run.name))
        for run in config.study.runs
    }
    options = config.features.video
    fps = (options.fps if options else None) or next((film.fps for film in films.values()), 0.0)
    scanned = {
        run.name: run.trs or max(scan.trs(run.name) for scan in scans.values())
        for run in config.study.runs
    }
    segments = {}
    if config.features.text:
        segments = sheets.read_segments(config.study, lengths, scanned)
    return StudyPlan(subjects, lengths, grid, fps, segments)


def _require_files(config: RunConfig) -> None:
    """Check that the files are there which are read long after the scans."""
    named = {
        "bold.regions": config.bold.regions,
        "bold.region_names": config.bold.region_names,
        "bold.mask": None if config.bold.mask == "vote" else config.bold.mask,
        "evaluate.best_r": config.evaluate.best_r,
    }
    for field, file in named.items():
        if file is not None and not (config.study.root / file).is_file():
            raise DataError(
                f"{field}: no file {config.study.root / file}",
                hint=f"correct {field}, or leave it out",
            )


def _length(
    config: RunConfig, run: ScanRun, *, scans: Mapping[str, bold.Scans], film: video.Film | None
) -> int:
    """Return a run's TRs: the shorter of film and scans, which may differ by a little only."""
    found = {name: scan.trs(run.name) for name, scan in scans.items()}
    scanned = max(found.values())
    expected = run.trs or scanned
    short = {name: trs for name, trs in found.items() if trs < expected}
    worst = expected - min(found.values())
    if worst > config.bold.max_missing_trs:
        raise DataError(
            f"run {run.name} should have {expected} TRs; these subjects have fewer: {short}",
            hint="leave them out with study.subjects, or raise bold.max_missing_trs",
        )
    limit = config.study.max_trim_trs
    if scanned - expected > limit:
        raise DataError(
            f"run {run.name}: the scans have {scanned} TRs, study.runs.trs says {expected}",
            hint="correct study.runs.trs, or raise study.max_trim_trs to cut the scans",
        )
    if film is None or not (config.features.video or config.features.audio):
        return expected
    shown = int((film.seconds - run.film_start) / config.study.tr + 1e-6)
    if expected - shown > limit or (run.trs is None and shown - expected > limit):
        raise DataError(
            f"run {run.name}: the film lasts {shown} TRs of {config.study.tr:g} s from "
            f"{run.film_start:g} s, the scans {expected}",
            hint="check study.tr, film and film_start; give study.runs.trs when the film goes on "
            "after the scan",
        )
    if shown != expected and (run.trs is None or shown < expected):
        logger.info(
            "run %s: film %d TRs, scans %d TRs; cut to %d",
            run.name,
            shown,
            expected,
            min(shown, expected),
        )
    return min(shown, expected)


def code_digest(*modules: ModuleType) -> str:
    """Return a digest of code that comments, docstrings and layout do not change.

    It covers the modules, and the one that puts their output into rows.
    """
    trees = []
    for source in (*map(inspect.getsource, modules), WRITERS.read_text()):
        tree = ast.parse(source)
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
                value = body[0].value
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    del body[0]
        trees.append(ast.dump(tree))
    return sha256_json(trees)[:16]


class Digests:
    """sha256 of input files, remembered in the store by size and modification time.

    Parameters
    ----------
    store : FeatureStore
        Where they are remembered.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._path = store.path / RECORDS / "digests.json"
        self._known: dict[str, Any] = read_json(self._path) if self._path.is_file() else {}

    def weights(self, name: str) -> str:
        """Return a digest of a model's folder; empty when it is a name, which stands for itself."""
        folder = Path(name)
        if not folder.is_dir():
            return ""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return sha256_json({str(path.relative_to(folder)): self.of(path) for path in files})

    def of(self, path: Path) -> str:
        """Return a file's sha256."""
        status = path.stat()
        key = [status.st_size, status.st_mtime_ns]
        known = self._known.get(str(path))
        if known is None or known["key"] != key:
            known = {"key": key, "sha256": sha256_file(path)}
            self._known[str(path)] = known
            with self._store.shared():
                write_json(self._path, self._known)
        digest: str = known["sha256"]
        return digest


def stimulus_parts(config: RunConfig, plan: StudyPlan, digests: Digests) -> list[Part]:
    """Return the parts of all runs' features."""
    parts = []
    words = _all_words(plan) if config.features.text else []
    for run in config.study.runs:
        if config.features.video:
            parts.append(_video_part(config, run, plan, digests))
        if config.features.audio:
            parts.append(_audio_part(config, run, plan, digests))
        if config.features.text:
            parts.append(_text_part(config, run, plan, digests, words))
    return parts


def codebooks_part(options: AudioFeatures, digests: Digests) -> Part:
    """Return the part of the vectors that audio codes stand for."""
    from giblet_hpc.extract import codec

    return Part(
        "codebooks",
        (codec.codebooks(options), codec.CODEBOOK_SIZE, codec.CODE_DIMENSIONS),
        "float32",
        {
            "features.audio": plain(options),
            "weights": digests.weights(options.codec),
            "code": code_digest(codec),
        },
    )


def _film_inputs(config: RunConfig, run: ScanRun, digests: Digests) -> dict[str, Any]:
    assert run.film is not None
    return {
        "film": digests.of(config.study.root / run.film),
        "film_start": run.film_start,
        "tr": config.study.tr,
    }


def _video_part(config: RunConfig, run: ScanRun, plan: StudyPlan, digests: Digests) -> Part:
    options = config.features.video
    assert options is not None
    frames = timing.frames_per_tr(fps=plan.fps, tr=config.study.tr, skip=options.frame_skip)
    return Part(
        f"stimulus/{run.name}/video",
        (plan.lengths[run.name], frames, options.height, options.width, 3),
        "uint8",
        {
            **_film_inputs(config, run, digests),
            "features.video": {**plain(options), "fps": plan.fps},
            "code": code_digest(video, timing),
        },
    )


def _audio_part(config: RunConfig, run: ScanRun, plan: StudyPlan, digests: Digests) -> Part:
    options = config.features.audio
    assert options is not None
    _, count = timing.code_starts(trs=1, tr=config.study.tr, rate=audio.FRAME_RATE)
    codes = options.kind == "codes"
    rows, modules = options.mel_bands, [audio, timing]
    if codes:
        from giblet_hpc.extract import codec

        rows, modules = codec.codebooks(options), [audio, codec, timing]
    return Part(
        f"stimulus/{run.name}/audio",
        (plan.lengths[run.name], rows, count),
        "int16" if codes else "float32",
        {
            **_film_inputs(config, run, digests),
            "features.audio": plain(options),
            "weights": digests.weights(options.codec) if codes else "",
            "code": code_digest(*modules),
        },
        max_shard_rows=AUDIO_SHARD_TRS,
    )


def _text_part(
    config: RunConfig, run: ScanRun, plan: StudyPlan, digests: Digests, words: list[str]
) -> Part:
    options = config.features.text
    assert options is not None
    counted = options.encoder == text.LSA
    settings = plain(options)
    # TF-IDF and SVD are fitted on the training TRs later; the store holds counts.
    settings.pop("dimensions")
    width = len(words) if counted else options.segments * text.embedding_width(options)
    return Part(
        f"stimulus/{run.name}/text",
        (plan.lengths[run.name], width),
        "float32",
        {
            "segments": sha256_json([list(segment) for segment in plan.segments[run.name]]),
            "vocabulary": sha256_json(words) if counted else "",
            "features.text": settings,
            "weights": "" if counted else digests.weights(options.encoder),
            "code": code_digest(sheets, text, timing),
        },
        {"words": words if counted else []},
    )


def _all_words(plan: StudyPlan) -> list[str]:
    return text.vocabulary([s.text for run in plan.segments.values() for s in run])


def mask_part(config: RunConfig, plan: StudyPlan, digests: Digests) -> Part:
    """Return the part of the brain mask, which the voxel count of all scans depends on."""
    provenance: dict[str, Any] = {"code": code_digest(bold)}
    if config.bold.mask == "vote":
        provenance["subjects"] = {
            name: subject_digests(config, name, digests) for name in plan.subjects
        }
        names = ("vote_percentile", "vote_trs", "vote_threshold")
        provenance["bold"] = {name: getattr(config.bold, name) for name in names}
    else:
        provenance["mask"] = digests.of(config.study.root / config.bold.mask)
    return Part(
        "mask",
        plan.grid.shape,
        "uint8",
        provenance,
        {"affine": np.array(plan.grid.affine).tolist()},
    )


def subject_digests(config: RunConfig, subject: str, digests: Digests) -> str:
    """Return one digest of all files of a subject."""
    files = bold.scan_files(subject, config.study, config.bold)
    inputs = [digests.of(path) for path in dict.fromkeys(files.values())]
    if config.bold.confounds:
        inputs += [digests.of(confounds_path(config, subject, run)) for run in files]
    return sha256_json(inputs)


def confounds_path(config: RunConfig, subject: str, run: str) -> Path:
    """Return the confound table of a subject's run."""
    assert config.bold.confounds is not None
    return config.study.root / config.bold.confounds.format(subject=subject, run=run)


def rows_in_file(config: RunConfig, run: str) -> list[int]:
    """Return the first volume and the end of a run in a file of all runs; empty for own files."""
    if "{run}" in config.bold.files:
        return []
    span = bold.concatenated_spans(config.study.runs)[run]
    return [span.start, span.stop]


def bold_parts(
    config: RunConfig, plan: StudyPlan, digests: Digests, *, mask: Part, voxels: int
) -> dict[tuple[str, str], tuple[Part, Part, Part]]:
    """Return scores, validity and statistics of every (subject, run)."""
    settings = {
        name: value
        for name, value in plain(config.bold).items()
        if name in ("detrend", "high_pass", "confounds", "confound_columns", "max_missing_trs")
    }
    parts = {}
    for subject in plan.subjects:
        inputs = subject_digests(config, subject, digests)
        for run, length in plan.lengths.items():
            provenance = {
                "scans": inputs,
                "tr": config.study.tr,
                "run": run,
                "rows": rows_in_file(config, run),
                "mask": mask.fingerprint,
                "bold": settings,
                "code": code_digest(bold),
            }
            parts[subject, run] = (
                Part(f"bold/{subject}/{run}", (length, voxels), "float32", provenance),
                Part(f"valid/{subject}/{run}", (length,), "uint8", provenance),
                Part(f"stats/{subject}/{run}", (2, voxels), "float32", provenance),
            )
    return parts
