"""The config that `init` writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from giblet_hpc.discovery.draft import draft_config
from giblet_hpc.errors import DataError
from tests.test_study_files import touch


def test_a_draft_of_the_synthetic_study(study_folder: Path) -> None:
    made = draft_config(study_folder)
    config = made.config
    assert config.study.tr == 1.5
    assert [(run.name, str(run.film)) for run in config.study.runs] == [
        ("run1", "film_1.mp4"), ("run2", "film_2.mp4"),
    ]  # fmt: skip
    assert config.study.annotations.start_tr == "Start Time (TRs, 1.5s)"
    assert config.bold.regions == "regions.nii.gz"
    assert config.split.test_runs == ("run2",)
    assert made.undecided == ()
    assert "# found: scans of 3 subjects, 2 runs: sub-{subject}_{run}.nii.gz" in made.text


def test_folders_that_hold_no_study(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        draft_config(tmp_path / "none")
    with pytest.raises(DataError, match="no scans found among 0 files"):
        draft_config(tmp_path)
    touch(tmp_path, "sub-1_a.nii.gz")
    with pytest.raises(DataError, match="no film, sound or words"):
        draft_config(tmp_path)
    touch(tmp_path, "a.mp4")
    made = draft_config(tmp_path)
    assert made.undecided == ("study.tr: the files do not say it; 1.5 s is a guess",)
    assert "tr: 1.5  # (?)" in made.text
