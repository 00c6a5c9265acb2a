"""Which file is a subject's run: patterns, sessions, subjects who lack a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from giblet_hpc.config.bold import Bold
from giblet_hpc.config.study import ScanRun, Study
from giblet_hpc.errors import DataError
from giblet_hpc.study_files import FilePattern, StudyFiles, natural
from giblet_hpc.subjects import find_subjects

BIDS = "sub-{subject}/ses-{session}/func/sub-{subject}_ses-{session}_task-{task}_run-{run}_*_bold.nii.gz"


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def study(root: Path, *runs: ScanRun, subjects: object = "all") -> Study:
    return Study(name="s", root=root, tr=1.5, runs=runs or (ScanRun(name="a"),), subjects=subjects)  # type: ignore[arg-type]


def bids(subject: str, session: str, task: str, run: str, more: str = "space-MNI") -> str:
    name = f"sub-{subject}_ses-{session}_task-{task}_run-{run}_{more}_desc-preproc_bold.nii.gz"
    return f"sub-{subject}/ses-{session}/func/{name}"


def test_subjects_are_found_in_natural_order(tmp_path: Path) -> None:
    touch(tmp_path, "s1.nii.gz", "s2.nii.gz", "s10.nii.gz", "._s3.nii.gz")
    options = Bold(files="s{subject}.nii.gz")
    assert find_subjects(study(tmp_path), options) == ("1", "2", "10")
    assert find_subjects(study(tmp_path, subjects=2), options) == ("1", "2")
    with pytest.raises(DataError, match=r"lists \['7'\], who have no scans"):
        find_subjects(study(tmp_path, subjects=("1", "7")), options)
    with pytest.raises(DataError, match="asks for 5; found 3"):
        find_subjects(study(tmp_path, subjects=5), options)
    with pytest.raises(DataError, match="no scans match"):
        find_subjects(study(tmp_path), Bold(files="none{subject}.nii"))
    assert find_subjects(study(tmp_path), Bold(files="{subject}.nii.gz")) == ("s1", "s2", "s10")


def test_the_session_of_a_run_may_differ_by_subject(tmp_path: Path) -> None:
    touch(tmp_path, bids("01", "1", "movie", "1"), bids("01", "2", "movie", "2"),
          bids("02", "4", "movie", "1"), bids("02", "3", "movie", "2"))  # fmt: skip
    runs = (ScanRun(name="a", task="movie", label="1"), ScanRun(name="b", task="movie", label="2"))
    found = StudyFiles(study(tmp_path, *runs), Bold(files=BIDS))
    assert found.subjects == ("01", "02")
    assert found.of("02", "b") == (tmp_path / bids("02", "3", "movie", "2"),)
    assert found.of("01", "b") == (tmp_path / bids("01", "2", "movie", "2"),)
    tables = "sub-{subject}/ses-{session}/func/sub-{subject}_ses-{session}_task-{task}_run-{run}_desc-confounds_timeseries.tsv"
    beside = found.beside(FilePattern(tables, tmp_path), "02", "a")
    assert beside.name == "sub-02_ses-4_task-movie_run-1_desc-confounds_timeseries.tsv"


def test_several_files_for_a_run_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, bids("01", "1", "movie", "1"), bids("01", "2", "movie", "1"))
    run = ScanRun(name="1", task="movie")
    with pytest.raises(DataError, match="2 files fit bold.files for run 1 of subject 01") as caught:
        StudyFiles(study(tmp_path, run), Bold(files=BIDS)).of("01", "1")
    assert "session" in caught.value.hint
    chosen = run.model_copy(update={"session": "2"})
    found = StudyFiles(study(tmp_path, chosen), Bold(files=BIDS))
    assert found.of("01", "1") == (tmp_path / bids("01", "2", "movie", "1"),)


def test_subjects_who_lack_a_run(tmp_path: Path) -> None:
    touch(tmp_path, "s1_a.nii", "s2_a.nii", "s2_b.nii", "s3_b.nii")
    own = study(tmp_path, ScanRun(name="a"), ScanRun(name="b"))
    refused = StudyFiles(own, Bold(files="s{subject}_{run}.nii"))
    assert refused.subjects == ("1", "2", "3")
    with pytest.raises(DataError, match=r"scan not found: .*s3_a\.nii") as caught:
        refused.of("3", "a")
    assert "bold.missing_runs: allow" in caught.value.hint
    allowed = StudyFiles(own, Bold(files="s{subject}_{run}.nii", missing_runs="allow"))
    assert allowed.of("3", "a") == ()
    assert allowed.of("1", "a") == (tmp_path / "s1_a.nii",)


def test_both_hemispheres_or_none(tmp_path: Path) -> None:
    pattern = "s{subject}_{run}_hemi-{hemi}.func.gii"
    touch(tmp_path, "s1_a_hemi-R.func.gii", "s1_a_hemi-L.func.gii", "s2_a_hemi-L.func.gii")
    found = StudyFiles(study(tmp_path), Bold(files=pattern, missing_runs="allow"))
    assert [path.name[-10] for path in found.of("1", "a")] == ["L", "R"]
    with pytest.raises(DataError, match="scan not found"):
        found.of("2", "a")


def test_signs_of_patterns_of_the_shell_stand_for_themselves(tmp_path: Path) -> None:
    touch(tmp_path, "[x] s1?_a.nii", "x s2?_a.nii")
    found = StudyFiles(study(tmp_path), Bold(files="[x] s{subject}?_{run}.nii"))
    assert found.subjects == ("1",)


TEXT = st.text("abz019", min_size=1, max_size=6)


@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=6, unique=True))
def test_what_a_pattern_makes_it_finds(made: list[tuple[str, str, str]]) -> None:
    pattern = FilePattern("sub-{subject}/ses-{session}_sub-{subject}_{run}.nii", Path("/study"))
    fields = [dict(zip(("subject", "session", "run"), each, strict=True)) for each in made]
    paths = [pattern.filled(given) for given in fields]
    for wanted in fields:
        found = pattern.match(paths, {"run": wanted["run"], "subject": wanted["subject"]})
        same = [
            f for f in fields if f["run"] == wanted["run"] and f["subject"] == wanted["subject"]
        ]
        assert sorted(match.fields["session"] for match in found) == sorted(
            f["session"] for f in same
        )


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=8, unique=True))
def test_natural_order_is_that_of_numbers(numbers: list[int]) -> None:
    names = [f"s{number}x" for number in numbers]
    assert sorted(names, key=natural) == [f"s{number}x" for number in sorted(numbers)]


@pytest.mark.parametrize(
    "pattern",
    ["sub-{subject}*_task-{task}.npy", "sub-{subject}_task-{task}*.npy", "./sub-{subject}_task-{task}.npy",
     ".//sub-{subject}_task-{task}*.npy", "*sub-{subject}_task-{task}.npy"],
)  # fmt: skip
def test_wildcards_beside_fields(tmp_path: Path, pattern: str) -> None:
    touch(tmp_path, "sub-01_task-a.npy", "sub-02_task-a.npy", "deep/sub-03_task-a.npy")
    found = StudyFiles(study(tmp_path), Bold(files=pattern))
    assert found.subjects == ("01", "02")


def test_a_file_beside_the_scans_is_looked_for_where_it_can_be(tmp_path: Path) -> None:
    touch(tmp_path, "sub-1/x1_a.tsv", "sub-2/x2_a.tsv", "sub-1/x3_b.tsv")
    pattern = FilePattern("sub-{subject}/x*_{run}.tsv", tmp_path)
    assert [path.name for path in pattern.paths()] == ["x1_a.tsv", "x3_b.tsv", "x2_a.tsv"]
    assert [path.name for path in pattern.paths({"subject": "1", "run": "b"})] == ["x3_b.tsv"]
