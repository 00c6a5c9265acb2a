from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from giblet_hpc.config import io
from giblet_hpc.config.split import Split
from giblet_hpc.config.study import ScanRun, Study
from giblet_hpc.errors import ConfigError
from giblet_hpc.splits import (
    Block,
    Fold,
    load_folds,
    make_folds,
    outer_folds,
    repeats_of,
    save_folds,
)
from giblet_hpc.training.members import members
from giblet_hpc.training.windows import covering_windows, epoch_windows

RUNS = ("a", "b", "c")
TR = 1.5


def folds_of(scheme: str, lengths: dict[str, int], **options: object) -> tuple[Fold, ...]:
    study = Study(name="s", tr=TR, runs=tuple(ScanRun(name=name) for name in lengths))
    return make_folds(Split(scheme=scheme, **options), study, lengths)  # type: ignore[arg-type]


@given(
    st.sampled_from(["leave-one-run-out", "blocks", "runs"]),
    st.lists(st.integers(150, 400), min_size=2, max_size=3),
    st.integers(0, 12),
    st.sampled_from([0.0, 0.15, 0.3]),
)
def test_parts_are_purged_and_windows_do_not_straddle(
    scheme: str, trs: list[int], purge: int, validation: float
) -> None:
    lengths = dict(zip(RUNS, trs, strict=False))
    folds = folds_of(
        scheme, lengths, purge_seconds=purge * TR, validation_fraction=validation, test_runs=("a",)
    )
    for fold in folds:
        owner: dict[str, np.ndarray] = {run: np.zeros(n, dtype=int) for run, n in lengths.items()}
        for number, part in enumerate((fold.train, fold.validation, fold.test), start=1):
            for block in part:
                assert (owner[block.run][block.start : block.stop] == 0).all()
                owner[block.run][block.start : block.stop] = number
        for marks in owner.values():
            changes = np.flatnonzero(np.diff(marks))
            used = marks > 0
            for left in np.flatnonzero(used[:-1] & ~used[1:]):
                later = np.flatnonzero(used[left + 1 :])
                assert later.size == 0 or later[0] >= purge
            assert changes.size == 0 or purge > 0 or scheme != "runs" or validation > 0
        for window in epoch_windows(fold.train, 16, seed=1, epoch=2):
            assert window.block in fold.train
            assert window.block.start <= window.start
            assert window.start + 16 <= window.block.stop
        covered = [
            (w.block.run, t)
            for w in covering_windows(fold.test, 16)
            for t in range(w.start, min(w.start + 16, w.block.stop))
        ]
        assert len(covered) == len(set(covered)) == sum(block.trs for block in fold.test)


def test_leave_one_run_out_tests_each_run_once() -> None:
    folds = folds_of("leave-one-run-out", {"a": 200, "b": 150})
    assert [fold.test for fold in folds] == [(Block("a", 0, 200),), (Block("b", 0, 150),)]


def test_too_short_a_part_is_refused() -> None:
    with pytest.raises(ConfigError, match="fewer than 8 TRs"):
        folds_of("blocks", {"a": 30, "b": 30}, purge_seconds=12 * TR)


def test_same_number_of_windows_every_epoch_in_another_order() -> None:
    blocks = [Block("a", 3, 103), Block("b", 0, 47)]
    epochs = [epoch_windows(blocks, 16, seed=5, epoch=e) for e in range(20)]
    assert {len(windows) for windows in epochs} == {100 // 16 + 47 // 16}
    assert epochs[0] != epochs[1]
    assert epochs[3] == epoch_windows(blocks, 16, seed=5, epoch=3)
    seen = {(w.block.run, t) for e in epochs for w in e for t in range(w.start, w.start + 16)}
    assert len(seen) == 147


def test_the_split_is_an_artefact(tmp_path: Path) -> None:
    folds = folds_of("leave-one-run-out", {"a": 200, "b": 150})
    save_folds(folds, tmp_path / "split.json", purge_trs=10)
    assert load_folds(tmp_path / "split.json") == folds


def film_seconds(block: Block, study: Study) -> tuple[float, float]:
    start = next(run.film_start for run in study.runs if run.name == block.run)
    return start + block.start * study.tr, start + block.stop * study.tr


def of_one_film(starts: list[float]) -> Study:
    runs = tuple(
        ScanRun(name=name, film=Path("film.mp4"), film_start=start)
        for name, start in zip(RUNS, starts, strict=False)
    )
    return Study(name="s", tr=1.5, runs=runs)


@given(
    st.lists(st.floats(0, 900), min_size=2, max_size=3),
    st.sampled_from(["leave-one-run-out", "blocks", "runs"]),
    st.integers(0, 8),
)
def test_no_second_of_the_film_is_trained_on_and_tested(
    starts: list[float], scheme: str, purge: int
) -> None:
    study = of_one_film(starts)
    lengths = dict.fromkeys((run.name for run in study.runs), 300)
    split = Split(
        scheme=scheme, purge_seconds=purge * TR, test_runs=("a",), validation_fraction=0.2
    )  # type: ignore[arg-type]
    try:
        folds = make_folds(split, study, lengths)
    except ConfigError as error:
        assert "fewer than 8 TRs" in str(error)
        return
    for fold in folds:
        for subset, others in ((fold.train, (*fold.test, *fold.validation)),
                               (fold.validation, fold.test)):  # fmt: skip
            for block in subset:
                low, high = film_seconds(block, study)
                for other in others:
                    if other.run != block.run:
                        a, b = film_seconds(other, study)
                        assert high <= a + 1e-6 or low >= b - 1e-6


def test_an_overlap_is_left_out_of_training_and_said(caplog: pytest.LogCaptureFixture) -> None:
    """The second run begins with the last 30 s of the first."""
    study = of_one_film([0.0, 420.0])
    split = Split(scheme="leave-one-run-out", purge_seconds=5 * TR, validation_fraction=0)
    with caplog.at_level("INFO"):
        folds = make_folds(split, study, {"a": 300, "b": 300})
    assert folds[0].train == (Block("b", 25, 300),)
    assert folds[1].train == (Block("a", 0, 275),)
    assert "test-a: 25 TRs (0.6 min) are left out of training" in caplog.text


def test_a_film_shown_twice_is_on_one_side() -> None:
    study = of_one_film([0.0, 0.0, 450.0])
    split = Split(scheme="leave-one-run-out", purge_seconds=0, validation_fraction=0)
    folds = make_folds(split, study, {"a": 300, "b": 300, "c": 300})
    assert [block.run for block in folds[0].train] == ["c"]
    assert [block.run for block in folds[2].train] == ["a", "b"]


def test_other_films_and_runs_that_follow_each_other_are_left_as_they_are() -> None:
    study = of_one_film([0.0, 450.0])
    split = Split(scheme="leave-one-run-out", purge_seconds=10 * TR, validation_fraction=0)
    assert make_folds(split, study, {"a": 300, "b": 300})[0].train == (Block("b", 0, 300),)
    runs = tuple(ScanRun(name=n, film=Path(f"{n}.mp4")) for n in "ab")
    other = Study(name="s", tr=1.5, runs=runs)
    assert make_folds(split, other, {"a": 300, "b": 300})[0].train == (Block("b", 0, 300),)
    sheets = tuple(ScanRun(name=n, annotations=Path("same.csv")) for n in "ab")
    twice = Study(name="s", tr=1.5, runs=sheets)
    with pytest.raises(ConfigError, match="fewer than 8 TRs for train"):
        make_folds(split, twice, {"a": 300, "b": 300})


def test_repeats_are_what_runs_share() -> None:
    study = of_one_film([0.0, 15.0, 0.7])
    blocks = [Block("a", 0, 100), Block("b", 0, 100), Block("c", 0, 100)]
    assert repeats_of(blocks, study) == [[Block("a", 10, 100), Block("b", 0, 90)]]
    same = of_one_film([0.0, 0.0, 0.0])
    assert repeats_of(blocks, same) == [blocks]
    assert repeats_of([Block("a", 0, 50), Block("b", 45, 100)], same) == []


def test_the_same_file_by_another_name_and_the_same_task(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    names = (Path("a.mp4"), Path("x/../a.mp4"), tmp_path / "a.mp4")
    runs = tuple(ScanRun(name=n, film=f) for n, f in zip("abc", names, strict=True))
    study = Study(name="s", tr=1.5, root=tmp_path, runs=runs)
    blocks = [Block(run, 0, 100) for run in "abc"]
    assert repeats_of(blocks, study) == [blocks]
    tasks = tuple(ScanRun(name=n, task="life", session=n) for n in "ab")
    twice = Study(name="s", tr=1.5, runs=tasks)
    assert len(repeats_of(blocks[:2], twice)) == 1


@pytest.mark.parametrize("scheme", ["leave-one-run-out", "blocks"])
@pytest.mark.parametrize("count", [2, 5])
def test_inner_folds_divide_the_training_trs(tmp_path: Path, scheme: str, count: int) -> None:
    every = folds_of(scheme, {"a": 300, "b": 290}, inner_blocks=count)
    outer = outer_folds(every)
    assert outer == list(folds_of(scheme, {"a": 300, "b": 290}))
    for fold in outer:
        inner = [one for one in every if one.within == fold.name]
        assert len(inner) == count
        tested = [(b.run, tr) for one in inner for b in one.test for tr in range(b.start, b.stop)]
        trained = [(b.run, tr) for b in fold.train for tr in range(b.start, b.stop)]
        assert tested == trained, "each once, in their order"
        for one in inner:
            assert one.validation == fold.validation
            for left, right in itertools.product(one.train, one.test):
                apart = max(left.start - right.stop, right.start - left.stop)
                assert left.run != right.run or apart >= 10, "purged on both sides"
            assert {b.run for b in one.train} <= {b.run for b in fold.train}
    save_folds(every, tmp_path / "split.json", purge_trs=10)
    assert load_folds(tmp_path / "split.json") == every


def test_no_two_networks_have_the_same_name(demo_config: str) -> None:
    """Whatever runs are called: a network is found by its fold's name."""
    runs = {name: 300 for name in ("a", "a-inner-1", "a-seed-2", "a-inner-1-seed-2")}
    every = folds_of("leave-one-run-out", runs, inner_blocks=2)
    config = io.load(Path(demo_config), ["train.seeds=2"])
    names = [member.fold.name for fold in every for member in members(config, fold)]
    assert len(names) == len(set(names)) == 4 * 3 * 2
    assert [member.config.train.seed for member in members(config, every[0])] == [0, 1]


def test_inner_folds_that_are_too_short() -> None:
    with pytest.raises(ConfigError, match="split.inner_blocks 40 leaves fewer than 8 TRs"):
        folds_of("blocks", {"a": 100, "b": 100}, inner_blocks=40)
