"""Which pattern describes the scans of a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from giblet_hpc.discovery.scans import FoundRun, find_layouts, list_files
from tests.test_study_files import touch


def found(folder: Path) -> tuple[str, list[str], list[FoundRun]]:
    layout = find_layouts(folder, list_files(folder))[0]
    return layout.pattern, layout.subjects, layout.runs


@pytest.mark.parametrize(
    ("names", "pattern", "runs"),
    [
        (["sub-1_run1.nii.gz", "sub-1_run2.nii.gz", "sub-2_run1.nii.gz", "sub-2_run2.nii.gz"],
         "sub-{subject}_{run}.nii.gz", ["run1", "run2"]),
        (["sherlock_movie_s1.nii.gz", "sherlock_movie_s2.nii.gz", "pmc_mask.nii.gz"],
         "sherlock_movie_s{subject}.nii.gz", [""]),
        (["s1/film_a.nii", "s1/film_b.nii", "s2/film_a.nii", "s2/film_b.nii"],
         "s{subject}/film_{run}.nii", ["a", "b"]),
        (["P01/P01_intact.npy", "P02/P02_intact.npy"], "P{subject}/P{subject}_intact.npy", [""]),
    ],
)  # fmt: skip
def test_plain_names(tmp_path: Path, names: list[str], pattern: str, runs: list[str]) -> None:
    touch(tmp_path, *names)
    assert found(tmp_path)[0] == pattern
    assert [run.label for run in found(tmp_path)[2]] == runs


def test_bids_prefers_preprocessed_scans_in_a_common_space(tmp_path: Path) -> None:
    for subject in ("01", "02"):
        for session, run in (("1", "1"), ("2", "2")):
            stem = (
                f"sub-{subject}/ses-{session}/func/sub-{subject}_ses-{session}_task-movie_run-{run}"
            )
            touch(tmp_path, f"{stem}_bold.nii.gz",
                  f"d/{stem}_space-T1w_desc-preproc_bold.nii.gz",
                  f"d/{stem}_space-MNI152NLin2009cAsym_res-2_desc-preproc_bold.nii.gz",
                  f"d/{stem}_space-MNI152NLin2009cAsym_res-2_desc-brain_mask.nii.gz",
                  f"d/{stem}_space-MNI152NLin2009cAsym_res-2_boldref.nii.gz",
                  f"d/{stem.replace('movie', 'rest')}_space-T1w_desc-preproc_bold.nii.gz")  # fmt: skip
    pattern, subjects, runs = found(tmp_path)
    assert pattern == (
        "d/sub-{subject}/ses-{session}/func/sub-{subject}_ses-{session}_task-{task}_run-{run}"
        "_space-MNI152NLin2009cAsym_res-2_desc-preproc_bold.nii.gz"
    )
    assert subjects == ["01", "02"]
    assert [(run.name, run.task, run.label, run.session) for run in runs] == [
        ("movie_run-1", "movie", "1", ""), ("movie_run-2", "movie", "2", ""),
    ]  # fmt: skip


def test_sessions_tell_runs_apart_where_a_task_is_repeated(tmp_path: Path) -> None:
    for session in ("1", "2"):
        touch(tmp_path, f"sub-01/ses-{session}/func/sub-01_ses-{session}_task-life_bold.nii.gz")
    assert [run.name for run in found(tmp_path)[2]] == ["ses-1_life", "ses-2_life"]


def test_hidden_files_and_stores_are_no_study(tmp_path: Path) -> None:
    touch(tmp_path, "._sub-1_run1.nii.gz", ".git/sub-1_run1.nii.gz", "s.zarr/sub-1_run1.nii.gz",
          "sub-1_run1.nii.gz")  # fmt: skip
    assert list_files(tmp_path) == [Path("sub-1_run1.nii.gz")]


def test_who_lacks_what(tmp_path: Path) -> None:
    touch(tmp_path, "sub-1_a.nii", "sub-1_b.nii", "sub-2_b.nii")
    (layout,) = find_layouts(tmp_path, list_files(tmp_path))
    assert layout.missing == [("2", "a")]
