"""Which films and words belong to which run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from giblet_hpc.discovery.scans import FoundRun
from giblet_hpc.discovery.stimuli import find_stimuli, match_runs, read_columns
from tests.test_study_files import touch

A, B = FoundRun(label="1", task="movie"), FoundRun(label="2", task="movie")


@pytest.mark.parametrize(
    "names",
    [
        ["movie_run-1.mp4", "movie_run-2.mp4"],
        ["film1.mp4", "film2.mp4"],
        ["part_02.mp4", "part_01.mp4"],
        ["x.mp4", "y.mp4"],
    ],
)
def test_names_tell_which_film_is_whose(names: list[str]) -> None:
    found = match_runs([Path(name) for name in names], [A, B])
    assert [found[A].name, found[B].name] == sorted(names)


def test_nothing_is_guessed_where_names_do_not_tell() -> None:
    assert match_runs([Path("film.mp4")], [A, B]) == {}
    assert match_runs([Path(f"{name}.mp4") for name in "xyz"], [A, B]) == {}
    episodes = [FoundRun(label="s01e01a"), FoundRun(label="s01e02a")]
    films = [Path(f"friends_s0{s}e0{e}a.mkv") for s in (1, 2) for e in (1, 2)]
    found = match_runs(films, episodes)
    assert [path.stem for path in found.values()] == ["friends_s01e01a", "friends_s01e02a"]


def test_columns_of_sheets(tmp_path: Path) -> None:
    path = tmp_path / "events.tsv"
    path.write_text("onset\tduration\ttrial_type\ttext\n1\t2\ta\tb\n")
    found = read_columns(path)
    assert found is not None
    assert (found.start, found.duration, found.end, found.text) == (
        "onset",
        "duration",
        "",
        ("text",),
    )
    path.write_text("participant_id\tage\n1\t2\n")
    assert read_columns(path) is None
    path.write_text("text_per_tr\twords_per_tr\tonsets_per_tr\n")
    assert read_columns(path) is not None
    path.write_bytes(b"\xff\xfe\x00")
    assert read_columns(path) is None


def test_what_cannot_be_given_to_runs_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "one.mp4")
    found = find_stimuli(tmp_path, [Path("one.mp4")], [A, B])
    assert found.films == {}
    assert found.undecided == ("one.mp4: which film belongs to which run",)


def test_words_of_whisperx_but_no_sidecars(tmp_path: Path) -> None:
    (tmp_path / "movie1.json").write_text(json.dumps({"segments": []}))
    (tmp_path / "movie2.json").write_text(json.dumps({"segments": []}))
    (tmp_path / "sub-01_bold.json").write_text(json.dumps({"RepetitionTime": 2}))
    files = [Path(path.name) for path in sorted(tmp_path.iterdir())]
    assert [path.name for path in find_stimuli(tmp_path, files, [A, B]).words.values()] == [
        "movie1.json", "movie2.json",
    ]  # fmt: skip


def test_a_guess_by_order_is_said(tmp_path: Path) -> None:
    runs = [FoundRun(task="alpha"), FoundRun(task="beta")]
    found = find_stimuli(tmp_path, [Path("sherlock.mp4"), Path("merlin.mp4")], runs)
    assert "films: given to runs in the order of their names" in found.undecided
    named = find_stimuli(tmp_path, [Path("alpha.mp4"), Path("beta.mp4")], runs)
    assert named.undecided == ()
