"""A synthetic study that shares nothing with `giblet-hpc synthesize`, and how much of it is found.

    python benchmarks/second_study.py FOLDER [--seed 0]

writes real files (H.264 with sound, a sheet of words, NIfTI of three subjects, TR 2.0 s): drifting
gratings whose contrast, orientation and direction change, a tone whose pitch and loudness wander,
sentences about topics. Scans follow them through a response of their own (a gamma density after
Boynton et al. 1996, with each subject's own delay), sampled in the middle of TRs, with slow noise.
What is best for each voxel is known, and written as `best_r.nii.gz`; so is a config of defaults.
Then preprocess, train and evaluate it:

    for stage in preprocess train evaluate; do
        giblet-hpc run $stage second --config FOLDER/second.yaml --runs FOLDER/runs
    done
    giblet-hpc scores second --runs FOLDER/runs
"""

from __future__ import annotations

import argparse
import csv
from fractions import Fraction
from pathlib import Path

import av
import nibabel
import numpy as np
from numpy.typing import NDArray

TR, RUNS, TRS, SUBJECTS, RATE, FPS = 2.0, 4, 300, 3, 24_000, 25
STEP = 0.1
"""Seconds of the grid on which everything is planted."""
GRID = (10, 10, 8)
REGIONS = ("contrast", "motion", "pitch", "topics", "mixed", "none")
TOPICS = (
    "boat harbour sail wave tide anchor shore captain",
    "oven bread flour butter sugar cake recipe kitchen",
    "judge lawyer court trial verdict prison witness crime",
    "guitar drum singer concert melody stage rhythm song",
    "tree river forest moss fern hill stone meadow",
)
CONFIG = """study:
  name: second
  root: {root}
  store: {root}/store.zarr
  tr: 2.0
  runs:
{runs}
  annotations: {{file: words.tsv, text: [what], start_seconds: start, end_seconds: end, run: run,
                start_tr: null, end_tr: null}}
bold:
  files: sub-{{subject}}_{{run}}.nii.gz
  regions: regions.nii.gz
  region_names: regions.tsv
features:
  video: {{height: 45, width: 80, frame_skip: 5}}
  audio: {{kind: mel}}
  text: {{encoder: lsa, dimensions: 12}}
  motion: {{}}
split: {{scheme: runs, test_runs: [run4]}}
model: {{bottleneck: 256}}
evaluate: {{best_r: best_r.nii.gz}}
"""


def held(random: np.random.Generator, steps: int, shortest: float, longest: float) -> NDArray:
    """Numbers of stretches, (steps,), each of some seconds."""
    found: list[int] = []
    number = 0
    while len(found) < steps:
        found += [number] * round(random.uniform(shortest, longest) / STEP)
        number += 1
    return np.array(found[:steps])


class Run:
    """What is shown and heard in a run, on the fine grid."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        steps = round(TRS * TR / STEP)
        pieces = held(random, steps, 3, 8)
        count = pieces.max() + 1
        self.contrast = random.choice([0.0, 0.25, 0.6, 1.0], count)[pieces]
        self.angle = random.choice(np.arange(4) * np.pi / 4, count)[pieces]
        self.speed = random.choice([-4.0, 0.0, 4.0], count)[pieces]
        self.waves = random.choice([3.0, 6.0], count)[pieces]
        tones = held(random, steps, 2, 6)
        count = tones.max() + 1
        self.pitch = random.uniform(np.log(150), np.log(1200), count)[tones]
        self.loudness = random.choice([0.05, 0.3, 0.8], count)[tones]
        self.segments, self.topic = [], np.zeros((steps, len(TOPICS)))
        talk = held(random, steps, 4, 11)
        for number in range(talk.max() + 1):
            inside = np.flatnonzero(talk == number)
            topic = int(random.integers(len(TOPICS)))
            words = random.choice(TOPICS[topic].split(), 6)
            self.segments.append((inside[0] * STEP, (inside[-1] + 1) * STEP, " ".join(words)))
            self.topic[inside, topic] = 1

    def courses(self) -> dict[str, NDArray]:
        """What regions follow, (steps, features), by region."""
        turning = self.speed / 4 * (self.contrast > 0)
        lines = self.contrast[:, None] * np.stack(
            [np.cos(2 * self.angle), np.sin(2 * self.angle)], 1
        )
        return {
            "contrast": np.column_stack([self.contrast, lines]),
            "motion": np.column_stack([np.abs(turning) * self.contrast]),
            "pitch": np.column_stack([self.pitch * (self.loudness > 0), np.log(self.loudness)]),
            "topics": self.topic,
        }

    def write_film(self, file: Path) -> None:
        """Write gratings and tone as H.264 and AAC."""
        rows, columns = np.mgrid[-1:1:90j, -1.6:1.6:160j]
        with av.open(str(file), "w") as out:
            video = out.add_stream("libx264", rate=FPS)
            video.width, video.height, video.pix_fmt = 160, 90, "yuv420p"
            sound = out.add_stream("aac", rate=RATE, layout="mono")
            phase = 0.0
            for number in range(round(TRS * TR * FPS)):
                now = min(int(number / FPS / STEP), len(self.angle) - 1)
                phase += 2 * np.pi * self.speed[now] / FPS
                along = rows * np.sin(self.angle[now]) + columns * np.cos(self.angle[now])
                wave = np.sin(np.pi * self.waves[now] * along - phase)
                grey = (127.5 + 120 * self.contrast[now] * wave).astype(np.uint8)
                frame = av.VideoFrame.from_ndarray(np.stack([grey] * 3, 2), format="rgb24")
                for packet in video.encode(frame):
                    out.mux(packet)
            for packet in video.encode():
                out.mux(packet)
            self._write_sound(out, sound)

    def _write_sound(self, out: av.container.OutputContainer, sound: av.AudioStream) -> None:
        each = np.repeat(np.arange(len(self.pitch)), round(STEP * RATE))
        tone = np.sin(2 * np.pi * np.cumsum(np.exp(self.pitch[each])) / RATE)
        wave = (tone * self.loudness[each] * 0.8).astype(np.float32)
        for start in range(0, len(wave), 1024):
            part = np.zeros(1024, np.float32)
            part[: len(wave[start : start + 1024])] = wave[start : start + 1024]
            frame = av.AudioFrame.from_ndarray(part[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            for packet in sound.encode(frame):
                out.mux(packet)
        for packet in sound.encode():
            out.mux(packet)


def response(delay: float) -> NDArray:
    """Gamma density of 3 stages of 1.2 s after a delay, on the fine grid."""
    time = np.arange(0, 25, STEP) - delay
    late = np.maximum(time, 0) / 1.2
    return late**2 * np.exp(-late) / (2 * 1.2) * STEP


def scans_of(
    runs: list[Run], region: NDArray, random: np.random.Generator
) -> tuple[NDArray, NDArray]:
    """Scans (subjects, runs, trs, voxels), and the best r of each voxel, (subjects, voxels)."""
    names, voxels = REGIONS, region.size
    courses = [run.courses() for run in runs]
    every = {n: np.concatenate([c[n] for c in courses]) for n in courses[0]}
    # Scans are of changes: what is there from the start is the baseline, not a step at its begin.
    courses = [{n: own[n] - every[n].mean(axis=0) for n in own} for own in courses]
    scale = {n: values.std(axis=0) for n, values in every.items()}
    signal = np.zeros((SUBJECTS, RUNS, TRS, voxels))
    middle = np.round((np.arange(TRS) + 0.5) * TR / STEP).astype(int)
    shared = {n: random.standard_normal((len(scale[n]), voxels)) for n in scale}
    for subject in range(SUBJECTS):
        kernel = response(1.2 + 0.6 * subject)
        for number, own in enumerate(courses):
            for place, name in enumerate(names[:5]):
                inside = region == place
                for part in (name,) if name != "mixed" else tuple(own):
                    weights = shared[part] + 0.3 * random.standard_normal(shared[part].shape)
                    course = (own[part] / scale[part]) @ weights[:, inside]
                    late = np.stack([np.convolve(c, kernel)[: len(c)] for c in course.T], 1)
                    signal[subject, number][:, inside] += late[middle]
    signal -= signal.mean(axis=2, keepdims=True)
    size = signal.std(axis=(1, 2), keepdims=True)
    signal /= np.where(size > 0, size, 1)
    noise = random.standard_normal(signal.shape)
    for tr in range(1, TRS):
        noise[:, :, tr] = 0.4 * noise[:, :, tr - 1] + np.sqrt(1 - 0.4**2) * noise[:, :, tr]
    scans = signal + noise * random.uniform(0.6, 1.6, (1, 1, 1, voxels))
    best = np.zeros((SUBJECTS, voxels))
    for subject, voxel in np.ndindex(SUBJECTS, voxels):
        true = signal[subject, -1, :, voxel]
        if true.std() > 0:
            best[subject, voxel] = np.corrcoef(true, scans[subject, -1, :, voxel])[0, 1]
    return scans, best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder, random = given.folder.resolve(), np.random.default_rng(given.seed)
    folder.mkdir(parents=True, exist_ok=True)
    runs = [Run(1000 * given.seed + number) for number in range(RUNS)]
    for number, run in enumerate(runs, 1):
        run.write_film(folder / f"film_{number}.mp4")
    with (folder / "words.tsv").open("w", newline="") as handle:
        table = csv.writer(handle, delimiter="\t")
        table.writerow(["run", "start", "end", "what"])
        for number, run in enumerate(runs, 1):
            table.writerows([f"run{number}", f"{a:.1f}", f"{b:.1f}", w] for a, b, w in run.segments)
    region = random.permutation(np.arange(np.prod(GRID)) % len(REGIONS))
    scans, best = scans_of(runs, region, random)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    for subject, number in np.ndindex(SUBJECTS, RUNS):
        values = 500 + 20 * scans[subject, number].T.reshape(*GRID, TRS)
        image = nibabel.Nifti1Image(values.astype(np.float32), affine)
        image.header.set_zooms((3.0, 3.0, 3.0, TR))
        nibabel.save(image, folder / f"sub-{subject + 1}_run{number + 1}.nii.gz")
    volumes = best.T.reshape(*GRID, SUBJECTS).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volumes, affine), folder / "best_r.nii.gz")
    labels = (region + 1).reshape(GRID).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(labels, affine), folder / "regions.nii.gz")
    names = "".join(f"{number}\t{name}\n" for number, name in enumerate(REGIONS, 1))
    (folder / "regions.tsv").write_text(f"index\tname\n{names}")
    listed = "\n".join(f"    - {{name: run{n}, film: film_{n}.mp4}}" for n in range(1, RUNS + 1))
    (folder / "second.yaml").write_text(CONFIG.format(root=folder, runs=listed))


if __name__ == "__main__":
    main()
