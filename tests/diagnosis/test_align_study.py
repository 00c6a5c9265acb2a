"""Faults that are planted in a study are found, each with its number; a sound study has none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import gamma

from giblet_hpc.config import io
from giblet_hpc.config.run import RunConfig
from giblet_hpc.diagnosis import alignment
from giblet_hpc.diagnosis.align_study import Alignment
from giblet_hpc.findings import Finding
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.scans.tables import Columns
from giblet_hpc.splits import Block, Fold
from giblet_hpc.training.feed import RunArrays, StudyArrays

TR, TRS, VOXELS, NAMES = 1.5, 260, 30, ("01", "02", "03", "04")
FOLD = Fold("", (Block("run1", 0, TRS),), (), (Block("run2", 0, TRS),))


class Planted:
    """A study of two runs and four subjects whose scans follow the film by blood flow."""

    def __init__(self, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.random = random
        kernel = gamma.pdf(np.arange(0, 20, TR), 6)
        weights = random.standard_normal((6, VOXELS))
        self.means = {run: {} for run in ("run1", "run2")}  # type: dict[str, dict[str, Any]]
        anatomy = random.uniform(500, 1500, (len(NAMES), VOXELS))
        self.video, self.bold, self.valid = {}, {}, {}
        for run in ("run1", "run2"):
            scenes = np.repeat(random.uniform(30, 225, (TRS // 4, 6)), 4, 0)
            moving = np.clip(scenes + random.normal(0, 12, scenes.shape), 0, 255)
            pixels = moving.reshape(TRS, 1, 2, 3, 1).repeat(3, 4).repeat(2, 1)
            self.video[run] = np.clip(pixels + random.normal(0, 1, pixels.shape), 0, 255).astype(
                "u1"
            )
            course = (moving - moving.mean(0)) / moving.std(0)
            heard = np.stack([np.convolve(c, kernel)[:TRS] for c in course.T], 1) @ weights
            noise = random.standard_normal((len(NAMES), TRS, VOXELS))
            self.bold[run] = heard[None] / heard.std() + 1.2 * noise
            self.valid[run] = np.ones((len(NAMES), TRS), bool)
            self.means[run] = {
                name: anatomy[n] + random.normal(0, 20, VOXELS) for n, name in enumerate(NAMES)
            }
        self.folds = [FOLD]

    def study(self) -> tuple[RunConfig, StudyArrays]:
        config = io.load(Path(__file__).parents[2] / "configs" / "demo.yaml",
                         ["features.audio=null", "features.text=null"])  # fmt: skip
        runs = {
            run: RunArrays({"video": self.video[run]}, self.bold[run].astype(np.float32),
                           self.valid[run])
            for run in self.video
        }  # fmt: skip
        study = StudyArrays(runs, NAMES, np.ones(VOXELS, bool), Columns(VOXELS), {})
        return config, study

    def findings(self) -> list[Finding]:
        config, study = self.study()
        modalities = modalities_of(config.features)
        looked = Alignment(config, study, modalities, means=self.means, folds=self.folds)
        found = list(looked.findings())
        assert looked.facts()["curves"][0]["subject"] == "all"
        return found


def bad(found: list[Finding]) -> list[Finding]:
    return [one for one in found if one.level in ("warn", "fail")]


@pytest.mark.parametrize("seed", range(4))
def test_a_sound_study_has_no_faults(seed: int) -> None:
    found = Planted(seed).findings()
    assert bad(found) == []
    lag = next(one for one in found if one.check == "lag of run1")
    assert "follow the stimulus by 4 TRs" in lag.seen or "by 3 TRs" in lag.seen


@pytest.mark.parametrize(("trs", "level"), [(-7, "fail"), (-2, "warn"), (3, "warn"), (6, "fail")])
def test_a_run_that_is_shifted(trs: int, level: str) -> None:
    study = Planted()
    study.bold["run2"] = np.roll(study.bold["run2"], trs, axis=1)
    (found,) = bad(study.findings())
    assert (found.check, found.level) == ("lag of run2", level), found
    off = int(found.seen.partition("off by about ")[2].split()[0])
    assert abs(off - trs) <= 1
    assert "film_start" in found.fix


def test_a_subject_that_is_late() -> None:
    study = Planted()
    study.bold["run1"][2] = np.roll(study.bold["run1"][2], 3, axis=0)
    (found,) = bad(study.findings())
    assert found.check == "subjects of run1"
    assert "subject 03 is +3 TRs later than the others" in found.seen


def test_a_subject_who_saw_something_else() -> None:
    study = Planted()
    study.bold["run2"][1] = study.random.standard_normal((TRS, VOXELS))
    (found,) = bad(study.findings())
    assert "subject 02 does not follow the others" in found.seen


def test_scans_that_end_early_and_a_voxel_that_does_not_change() -> None:
    study = Planted()
    study.valid["run2"][3, -40:] = False
    study.bold["run2"][3, -40:] = 0
    study.bold["run1"][0, :, 5] = 7
    found = {one.check: one for one in bad(study.findings())}
    assert set(found) == {"scans of 04, run2", "scans of 01, run1"}
    assert found["scans of 04, run2"].seen.startswith("40 TRs fewer")
    assert "1 of" in found["scans of 01, run1"].seen


def test_two_subjects_whose_files_were_exchanged() -> None:
    study = Planted()
    own = study.means["run2"]
    own["01"], own["04"] = own["04"], own["01"]
    found = bad(study.findings())
    assert {one.seen.partition(" looks")[0] for one in found if "run2" in one.seen} == {
        "run2 of subject 01", "run2 of subject 04",
    }  # fmt: skip
    assert {one.check for one in found} == {"subjects over runs"}


def test_a_piece_of_film_in_training_and_in_test() -> None:
    study = Planted()
    study.video["run2"][200:230] = study.video["run1"][40:70]
    study.bold["run2"][:, 206:230] = study.bold["run1"][:, 46:70]
    (found,) = bad(study.findings())
    assert found.check == "shown twice"
    assert "TRs 40 to 69 of run1 are those from 200 on of run2" in found.seen
    assert "30 TRs are trained on and tested" in found.seen
    study.folds = [FOLD._replace(test=(Block("run2", 0, 190),))]
    found = next(one for one in study.findings() if one.check == "shown twice")
    assert (found.level, "left out" in found.seen) == ("ok", True)


def test_a_piece_that_one_run_shows_twice() -> None:
    rows = np.random.default_rng(0).standard_normal((100, 9))
    rows[70:85] = rows[20:35]
    (found,) = alignment.shown_twice("video", {"a": rows})
    assert (found.first, found.second, found.trs) == (("a", 20), ("a", 70), 15)


def test_a_screen_that_stays_the_same_is_shown_once() -> None:
    rows = np.random.default_rng(0).standard_normal((100, 9))
    rows[10:40], rows[60:95] = 1.0, 1.0
    assert alignment.shown_twice("video", {"a": rows}) == []


def test_noise_says_nothing_of_lags() -> None:
    study = Planted()
    for run in study.bold:
        study.bold[run] = study.random.standard_normal(study.bold[run].shape)
    found = {one.check: one for one in study.findings()}
    assert found["lag of run1"].level == "skipped"
