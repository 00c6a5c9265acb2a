"""A synthetic study with a known answer, as the files a lab would have.

A film with sound for each scan run, an annotation sheet, and scans of several subjects in which
some regions follow the picture, some the sound, some the words, some all of them and some
nothing, each through a causal hemodynamic response. Beside them lies the best correlation that
any model can reach in each voxel.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from giblet_hpc import timing
from giblet_hpc.errors import ConfigError
from giblet_hpc.files import atomic_path, write_json
from giblet_hpc.log import progress
from giblet_hpc.synthetic_film import write_film

REGIONS = ("video", "audio", "text", "mixed", "none")
TOPICS = {
    "kitchen": "stove kettle pours tea bread knife cooks plate steam cup",
    "street": "taxi pavement rain crowd traffic walks lamp bus crosses umbrella",
    "office": "desk phone papers types computer meeting colleague chair files calls",
    "garden": "flowers grass bench bird sunlight tree path digs fence leaves",
}
PEOPLE = ("John", "Mary", "Anderson", "Lestrade", "Molly")
COMMON = ("looks", "turns", "slowly", "speaks", "again", "then", "while", "moves", "pauses")
BASELINE = 800.0
STEPS = 20
"""Of a TR, in which blood's response is computed."""


@dataclass(frozen=True)
class StudySpec:
    """Sizes of a synthetic study."""

    runs: tuple[int, ...] = (360, 160)
    """TRs of each scan run."""
    subjects: int = 4
    """Number of subjects."""
    tr: float = 1.5
    """Seconds."""
    fps: float = 25.0
    """Frames a second of the films."""
    grid: tuple[int, int, int] = (14, 16, 12)
    """Voxels along x, y, z."""
    amplitude: float = 1.5
    """Standard deviation of the planted signal; the noise's is about 1."""
    shift_trs: int = 0
    """Shift of the scans against the films, circular within a run: a control without an answer
    for any value far above the hemodynamic lag."""
    seed: int = 0
    """Seed of everything."""


@dataclass
class Latents:
    """What goes on in one run, at the TR grid and in between."""

    video: NDArray[np.float64]
    """Brightness, warmth, position; shape (frames, 3), 0 to 1, at the frame rate."""
    audio: NDArray[np.float64]
    """Loudness of voice and of noise, pitch; shape (frames, 3), 0 to 1, at the frame rate."""
    topics: NDArray[np.int64]
    """Index of the topic at each TR; shape (trs,)."""
    segments: list[tuple[int, int, str, str]] = field(default_factory=list)
    """First TR, end, topic, description."""


def synthesize(folder: Path, spec: StudySpec | None = None) -> None:
    """Write a study of films, sheet, scans, atlas and the known answer.

    Parameters
    ----------
    folder : Path
        Where to. Must not hold a study yet.
    spec : StudySpec, optional

    Raises
    ------
    ConfigError
        When the folder already holds files.
    """
    spec = spec or StudySpec()
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty", hint="name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(spec.seed)
    latents = [_latents(trs, spec, random) for trs in spec.runs]
    for number, run in enumerate(progress(latents, label="films", total=len(latents)), start=1):
        path = folder / f"film_{number}.mp4"
        write_film(path, run.video, run.audio, fps=spec.fps, seed=spec.seed + number)
    _write_sheet(folder / "annotations.xlsx", latents, spec, random)
    _write_scans(folder, latents, spec, random)


def _steps(count: int, shortest: int, longest: int, random: np.random.Generator) -> list[int]:
    """Cut ``count`` into stretches; return their starts and the end."""
    starts = [0]
    while starts[-1] < count:
        starts.append(starts[-1] + int(random.integers(shortest, longest + 1)))
    return [*starts[:-1], count]


def _wandering(
    count: int, shortest: int, longest: int, random: np.random.Generator
) -> NDArray[np.float64]:
    """A course that jumps at cuts and drifts between them, 0 to 1."""
    values = np.zeros(count)
    edges = _steps(count, shortest, longest, random)
    for start, stop in itertools.pairwise(edges):
        level, drift = random.uniform(0.1, 0.9), random.uniform(-0.25, 0.25)
        values[start:stop] = np.clip(level + drift * np.linspace(0, 1, stop - start), 0, 1)
    return values


def _latents(trs: int, spec: StudySpec, random: np.random.Generator) -> Latents:
    frames = round(trs * spec.tr * spec.fps)
    second = round(spec.fps)
    video = np.stack([_wandering(frames, 3 * second, 9 * second, random) for _ in range(3)], 1)
    audio = np.stack([_wandering(frames, 3 * second, 8 * second, random) for _ in range(3)], 1)
    names = list(TOPICS)
    topics = np.zeros(trs, dtype=np.int64)
    edges = _steps(trs, 2, 6, random)
    segments = []
    for start, stop in itertools.pairwise(edges):
        topic = int(random.integers(len(names)))
        topics[start:stop] = topic
        words = [*random.choice(TOPICS[names[topic]].split(), 5), *random.choice(COMMON, 4)]
        random.shuffle(words)
        segments.append((start, stop, names[topic], " ".join(words)))
    return Latents(video, audio, topics, segments)


def _write_sheet(
    path: Path, latents: Sequence[Latents], spec: StudySpec, random: np.random.Generator
) -> None:
    """Write the sheet with the traps of the real one.

    Trailing spaces in headers, seconds that restart in each run while TRs run on, and segments
    at the end of the first run that were not scanned and have no TRs.
    """
    rows: list[list[Any]] = []
    offset = 0
    for number, run in enumerate(latents):
        for start, stop, topic, words in run.segments:
            who = ", ".join(random.choice(PEOPLE, 2, replace=False))
            times = [start * spec.tr, stop * spec.tr, offset + start + 1, offset + stop]
            rows.append([len(rows) + 1, *times, words, who, topic, "No"])
        if number == 0:
            end = spec.runs[0] * spec.tr
            for extra in (0, 2):
                unscanned = [end + extra, end + extra + 2, None, None]
                rows.append([len(rows) + 1, *unscanned, "credits roll", "", "street", "Yes"])
        offset += spec.runs[number]
    columns = [
        "Segment Number",
        "Start Time (s) ",
        "End Time (s) ",
        "Start Time (TRs, 1.5s)",
        "End Time (TRs, 1.5s)",
        "Scene Details - A Level ",
        "Name - All",
        "Location",
        "Music Presence ",
    ]
    with atomic_path(path) as temporary:
        pd.DataFrame(rows, columns=columns).to_excel(temporary, index=False)


def _drivers(run: Latents, spec: StudySpec) -> dict[str, NDArray[np.float64]]:
    """Return each modality's course at the TR grid: shape (trs, features)."""
    trs = len(run.topics)
    bounds = np.round(np.arange(trs + 1) * spec.tr * spec.fps).astype(int)
    bounds[-1] = len(run.video)

    def mean_over_tr(course: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = np.concatenate([np.zeros((1, 3)), course.cumsum(axis=0)])
        means: NDArray[np.float64] = np.diff(sums[bounds], axis=0) / np.diff(bounds)[:, None]
        return means

    return {
        "video": mean_over_tr(run.video),
        # The scans follow how loud voice and noise are, not the pitch.
        "audio": mean_over_tr(run.audio)[:, :2],
        "text": np.eye(len(TOPICS))[run.topics],
    }


def _regions(spec: StudySpec) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
    """Return an ellipsoid of a brain and its regions, slabs along y numbered from 1."""
    axes = [np.linspace(-1, 1, size) for size in spec.grid]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    brain = x**2 + y**2 + z**2 < 0.9
    # Slabs with the same number of voxels each.
    order = np.argsort(y[brain], kind="stable")
    labels = np.zeros(spec.grid, dtype=np.int32)
    slab = np.zeros(order.size, dtype=np.int32)
    slab[order] = np.arange(order.size) * len(REGIONS) // order.size + 1
    labels[brain] = slab
    return brain, labels


def _signals(
    latents: Sequence[Latents],
    spec: StudySpec,
    labels: NDArray[np.int32],
    random: np.random.Generator,
) -> list[NDArray[np.float64]]:
    """Return each run's noise-free courses: (trs, voxels), of standard deviation `amplitude`."""
    drivers = [_drivers(run, spec) for run in latents]
    lengths = np.cumsum([len(run.topics) for run in latents])[:-1]
    courses = {}
    for name in ("video", "audio", "text"):
        joined = np.concatenate([driver[name] for driver in drivers])
        scaled = (joined - joined.mean(axis=0)) / joined.std(axis=0)
        parts = [_responses(p, spec.tr) for p in np.split(scaled, lengths)]
        courses[name] = np.concatenate(parts)
    courses["mixed"] = np.concatenate([courses[n] for n in ("video", "audio", "text")], axis=1)
    total = len(courses["mixed"])
    signals = np.zeros((total, len(labels)))
    for number, name in enumerate(REGIONS, start=1):
        if name == "none":
            continue
        members = np.flatnonzero(labels == number)
        weights = random.standard_normal((courses[name].shape[1], len(members)))
        mixed = courses[name] @ weights
        signals[:, members] = spec.amplitude * (mixed - mixed.mean(0)) / mixed.std(0)
    return [np.roll(part, spec.shift_trs, axis=0) for part in np.split(signals, lengths)]


def _responses(drivers: NDArray[np.float64], tr: float) -> NDArray[np.float64]:
    """Return blood's response to what fills each TR, in the middle of the TRs, (trs, columns).

    By Glover's response in small steps of time: not the one that models start from.
    """
    from nilearn.glm.first_level import glover_hrf

    response = glover_hrf(tr, oversampling=STEPS, time_length=32.0)
    fine = np.repeat(drivers, STEPS, axis=0)
    return timing.convolve_causal(fine, response)[STEPS // 2 :: STEPS]


def _write_scans(
    folder: Path, latents: Sequence[Latents], spec: StudySpec, random: np.random.Generator
) -> None:
    brain, regions = _regions(spec)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = -1.5 * np.array(spec.grid)
    labels = regions[brain]
    signals = _signals(latents, spec, labels, random)
    anatomy = BASELINE * (0.8 + 0.4 * random.random(labels.size))
    best = np.zeros((*spec.grid, spec.subjects), dtype=np.float32)
    for subject in range(spec.subjects):
        noise_level = random.uniform(0.8, 1.2)
        gain = random.uniform(6.0, 14.0)
        deviation = np.concatenate(signals).std(axis=0)
        reachable = deviation / np.sqrt(deviation**2 + noise_level**2)
        reachable[0] = 0
        best[brain, subject] = reachable
        for number, signal in enumerate(signals, start=1):
            noise = noise_level * random.standard_normal(signal.shape)
            slow = np.linspace(-1, 1, len(signal))[:, None]
            drift = random.normal(0, 0.7, labels.size) * slow
            courses = anatomy + gain * (signal + noise + drift)
            courses[:, 0] = anatomy[0]
            if subject == spec.subjects - 1 and number == len(signals):
                missing = max(1, len(courses) // 10)
                courses[-missing:] = courses[-missing - 1]
            path = folder / f"sub-{subject + 1:02d}_run{number}.nii.gz"
            _save(path, courses, brain, affine, spec.tr)
    _save_volume(folder / "regions.nii.gz", regions, affine)
    _save_volume(folder / "best_r.nii.gz", best, affine)
    table = "".join(f"{number}\t{name}\n" for number, name in enumerate(REGIONS, start=1))
    (folder / "regions.tsv").write_text(f"label\tname\n{table}")
    write_json(folder / "answer.json", {"regions": REGIONS, "amplitude": spec.amplitude})


def _save(
    path: Path,
    courses: NDArray[np.float64],
    brain: NDArray[np.bool_],
    affine: NDArray[np.float64],
    tr: float,
) -> None:
    volume = np.zeros((*brain.shape, len(courses)), dtype=np.float32)
    volume[brain] = courses.T
    image = nibabel.Nifti1Image(volume, affine)
    image.header.set_zooms((3.0, 3.0, 3.0, tr))
    image.header.set_xyzt_units("mm", "sec")
    with atomic_path(path) as temporary:
        nibabel.save(image, temporary)


def _save_volume(path: Path, volume: NDArray[Any], affine: NDArray[np.float64]) -> None:
    with atomic_path(path) as temporary:
        nibabel.save(nibabel.Nifti1Image(volume, affine), temporary)
