"""The synthetic study in the layouts of public studies: their names and formats, small.

Every layout holds the same scans, so that what comes out of one can be compared with another.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import av
import h5py
import nibabel
import numpy as np
import pandas as pd
from nibabel import cifti2
from nibabel.gifti import GiftiDataArray, GiftiImage, GiftiMetaData
from praatio import textgrid

from giblet_hpc.config.study import Annotations, ScanRun, Study
from giblet_hpc.media.sheets import Lengths, read_segments
from giblet_hpc.media.sound import SAMPLE_RATE, sound_blocks
from giblet_hpc.synthetic import StudySpec, synthesize
from giblet_hpc.timing import Segment

TRS = (160, 80)
TR = 1.5
SUBJECTS = ("01", "02", "03")
RUNS = ("run1", "run2")
NAMES = Annotations(text=("Scene Details - A Level",))


def plain(folder: Path) -> Path:
    """Write the study as it is made; return its folder."""
    synthesize(folder, StudySpec(runs=TRS, subjects=3, grid=(7, 8, 6)))
    return folder


def courses(source: Path, subject: str, run: str) -> np.ndarray:
    """Return (trs, x, y, z)."""
    image = nibabel.load(source / f"sub-{subject}_{run}.nii.gz")
    return np.moveaxis(image.get_fdata(dtype=np.float32), -1, 0)


def voxels(source: Path) -> np.ndarray:
    """Return which voxels hold scans of all subjects, (x, y, z)."""
    return np.all([np.ptp(courses(source, s, r), axis=0) > 0 for s in SUBJECTS for r in RUNS], 0)


def segments(source: Path) -> dict[str, list[Segment]]:
    study = Study(
        name="s", root=source, tr=TR, runs=tuple(ScanRun(name=run) for run in RUNS),
        annotations=NAMES.model_copy(update={"file": Path("annotations.xlsx")}),
    )  # fmt: skip
    return read_segments(study, {r: Lengths(n, n, n) for r, n in zip(RUNS, TRS, strict=True)})


def fmriprep(source: Path, folder: Path) -> None:
    """Derivatives of fMRIPrep; each subject saw the runs in sessions of its own."""
    random = np.random.default_rng(0)
    for number, subject in enumerate(SUBJECTS):
        for run in RUNS:
            session = f"{number + int(run[-1]):03d}"
            func = folder / "derivatives" / f"sub-{subject}" / f"ses-{session}" / "func"
            func.mkdir(parents=True, exist_ok=True)
            stem = f"sub-{subject}_ses-{session}_task-movie_run-{run[-1]}"
            space = f"{stem}_space-MNI152NLin2009cAsym"
            scans = source / f"sub-{subject}_{run}.nii.gz"
            shutil.copy(scans, func / f"{space}_desc-preproc_bold.nii.gz")
            affine = nibabel.load(scans).affine
            mask = nibabel.Nifti1Image(voxels(source).astype(np.uint8), affine)
            nibabel.save(mask, func / f"{space}_desc-brain_mask.nii.gz")
            trs = TRS[RUNS.index(run)]
            motion = {f"{kind}_{axis}": random.standard_normal(trs) for kind in ("trans", "rot")
                      for axis in "xyz"}  # fmt: skip
            motion["framewise_displacement"] = np.append(np.nan, np.full(trs - 1, 0.1))
            table = func / f"{stem}_desc-confounds_timeseries.tsv"
            pd.DataFrame(motion).to_csv(table, sep="\t", index=False, na_rep="n/a")
            table.with_suffix(".json").write_text("{}")
            sidecar = func / f"{space}_desc-preproc_bold.json"
            sidecar.write_text(json.dumps({"RepetitionTime": TR}))
    for run in RUNS:
        (folder / "stimuli").mkdir(exist_ok=True)
        shutil.copy(source / f"film_{run[-1]}.mp4", folder / "stimuli" / f"movie_{run[-1]}.mp4")
    shutil.copy(source / "annotations.xlsx", folder / "stimuli" / "annotations.xlsx")


def _targets(source: Path) -> tuple[np.ndarray, int]:
    """Return which voxels become targets, and how many of them go to the left."""
    mask = voxels(source)
    return mask, int(mask.sum()) // 2


def fsaverage(source: Path, folder: Path) -> None:
    """Pairs of GIFTI files; the last vertices of each hemisphere are the medial wall."""
    mask, left = _targets(source)
    folder.mkdir(parents=True, exist_ok=True)
    for subject in SUBJECTS:
        for run in RUNS:
            rows = courses(source, subject, run)[:, mask]
            for side, part in (("L", rows[:, :left]), ("R", rows[:, left:])):
                wall = np.zeros((len(part), 7), np.float32)
                arrays = [
                    GiftiDataArray(row, intent="NIFTI_INTENT_TIME_SERIES", datatype="NIFTI_TYPE_FLOAT32")
                    for row in np.concatenate([part, wall], 1).astype(np.float32)
                ]  # fmt: skip
                meta = GiftiMetaData({"TimeStep": f"{1000 * TR:f}"})
                name = (
                    f"sub-{subject}_task-film{run[-1]}_space-fsaverage6_hemi-{side}_bold.func.gii"
                )
                nibabel.save(GiftiImage(darrays=arrays, meta=meta), folder / name)
    for run in RUNS:
        shutil.copy(source / f"film_{run[-1]}.mp4", folder / f"film{run[-1]}.mp4")
    shutil.copy(source / "annotations.xlsx", folder / "annotations.xlsx")


def cifti(source: Path, folder: Path) -> None:
    """CIFTI files of a cortex and a thalamus."""
    mask, left = _targets(source)
    right = int(mask.sum()) - left
    below = np.zeros((5, 5, 5), bool)
    below[1:4, 2, 2:4] = True
    places = cifti2.BrainModelAxis.from_surface(np.arange(left), left + 9, name="cortex_left")
    some = np.arange(right - 6)
    places += cifti2.BrainModelAxis.from_surface(some, right, name="cortex_right")
    places += cifti2.BrainModelAxis.from_mask(below, "thalamus_left", np.eye(4))
    for subject in SUBJECTS:
        for run in RUNS:
            func = folder / f"sub-{subject}" / "func"
            func.mkdir(parents=True, exist_ok=True)
            rows = courses(source, subject, run)[:, mask]
            image = cifti2.Cifti2Image(rows, (cifti2.SeriesAxis(0, TR, len(rows)), places))
            name = f"sub-{subject}_task-movie_run-{run[-1]}_space-fsLR_den-91k_bold.dtseries.nii"
            nibabel.save(image, func / name)
    for run in RUNS:
        shutil.copy(source / f"film_{run[-1]}.mp4", folder / f"movie_run-{run[-1]}.mp4")
    shutil.copy(source / "annotations.xlsx", folder / "annotations.xlsx")


def algonauts(source: Path, folder: Path) -> None:
    """Parcels: a file a subject, an array a run in sessions of its own; words by TR."""
    mask, _ = _targets(source)
    for number, subject in enumerate(SUBJECTS):
        func = folder / "fmri" / f"sub-{subject}" / "func"
        func.mkdir(parents=True, exist_ok=True)
        space = "space-MNI152NLin2009cAsym_atlas-Schaefer18_parcel-1000Par7Net_desc-s123456"
        with h5py.File(func / f"sub-{subject}_task-friends_{space}_bold.h5", "w") as file:
            for run in RUNS:
                rows = courses(source, subject, run)[:, mask]
                file[f"ses-{number + int(run[-1]):03d}_task-s01e0{run[-1]}a"] = rows
    for run, own in segments(source).items():
        episode = f"friends_s01e0{run[-1]}a"
        for kind in ("movies", "transcripts"):
            (folder / "stimuli" / kind / "friends" / "s1").mkdir(parents=True, exist_ok=True)
        film = folder / "stimuli" / "movies" / "friends" / "s1" / f"{episode}.mp4"
        shutil.copy(source / f"film_{run[-1]}.mp4", film)
        rows = []
        for tr in range(TRS[RUNS.index(run)]):
            words = [w for s in own if s.start <= tr < s.stop for w in s.text.split()]
            onsets = [round(TR * (tr + n / (len(words) + 1)), 3) for n in range(len(words))]
            rows.append([" ".join(words), words, onsets, [0.1] * len(words)])
        columns = ["text_per_tr", "words_per_tr", "onsets_per_tr", "durations_per_tr"]
        table = film.parents[3] / "transcripts" / "friends" / "s1" / f"{episode}.tsv"
        pd.DataFrame(rows, columns=columns).to_csv(table, sep="\t", index=False)


def ragged(source: Path, folder: Path) -> None:
    """NNDb: the last subject lacks the first film; motion in .1D files."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for subject in SUBJECTS:
        for run, film in zip(RUNS, ("500daysofsummer", "citizenfour"), strict=True):
            if subject == "03" and run == "run1":
                continue
            stem = f"sub-{int(subject)}_task-{film}_bold_blur_censor"
            shutil.copy(source / f"sub-{subject}_{run}.nii.gz", folder / f"{stem}.nii.gz")
            np.savetxt(folder / f"sub-{int(subject)}_task-{film}_motion.1D",
                       random.standard_normal((TRS[RUNS.index(run)], 6)))  # fmt: skip
            shutil.copy(source / f"film_{run[-1]}.mp4", folder / f"{film}.mp4")
    (folder / "participants.tsv").write_text("participant_id\tage\nsub-1\t30\n")


def story(source: Path, folder: Path) -> None:
    """Stories to listen to: sound and a TextGrid, no picture; a single subject."""
    folder.mkdir(parents=True, exist_ok=True)
    for run, own in segments(source).items():
        name = f"story{run[-1]}"
        shutil.copy(source / f"sub-01_{run}.nii.gz", folder / f"sub-01_task-{name}_bold.nii.gz")
        with av.open(str(folder / f"{name}.wav"), "w") as container:
            stream = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
            for _, samples in sound_blocks(source / f"film_{run[-1]}.mp4"):
                if len(samples):
                    data = (32767 * np.clip(samples, -1, 1)).astype(np.int16)[None]
                    frame = av.AudioFrame.from_ndarray(data, format="s16", layout="mono")
                    frame.sample_rate = SAMPLE_RATE
                    container.mux(stream.encode(frame))
            container.mux(stream.encode())
        words, free = [], 0.0
        for segment in sorted(own):
            texts = segment.text.split()
            step = TR * (segment.stop - segment.start) / len(texts)
            for number, text in enumerate(texts):
                start = TR * segment.start + number * step
                if start >= free:
                    free = start + 0.9 * step
                    words.append((start, free, text))
        grid = textgrid.Textgrid()
        grid.addTier(textgrid.IntervalTier("word", words, 0, TR * TRS[RUNS.index(run)] + 1))
        grid.save(str(folder / f"{name}.TextGrid"), format="long_textgrid", includeBlankSpaces=True)


def two_trs(source: Path, folder: Path) -> None:
    """The plain study, its last subject at a TR of 2 s."""
    shutil.copytree(source, folder)
    for run in RUNS:
        path = folder / f"sub-03_{run}.nii.gz"
        image = nibabel.load(path)
        rows = courses(source, "03", run)
        place = np.arange(1.0, len(rows) * TR, 2.0) / TR - 0.5
        before = np.floor(place).astype(int)
        share = (place - before)[:, None, None, None]
        after = np.minimum(before + 1, len(rows) - 1)
        slower = (1 - share) * rows[before] + share * rows[after]
        data = np.moveaxis(slower, 0, -1).astype(np.float32)
        made = nibabel.Nifti1Image(data, image.affine)
        made.header.set_zooms((3, 3, 3, 2.0))
        made.header.set_xyzt_units("mm", "sec")
        nibabel.save(made, path)
