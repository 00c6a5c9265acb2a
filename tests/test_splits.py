from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from giblet_hpc.config.split import Split
from giblet_hpc.config.study import ScanRun, Study
from giblet_hpc.errors import ConfigError
from giblet_hpc.splits import Block, Fold, load_folds, make_folds, save_folds
from giblet_hpc.training.windows import covering_windows, epoch_windows

RUNS = ("a", "b", "c")


def folds_of(scheme: str, lengths: dict[str, int], **options: object) -> tuple[Fold, ...]:
    study = Study(name="s", tr=1.5, runs=tuple(ScanRun(name=name) for name in lengths))
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
        scheme, lengths, purge_trs=purge, validation_fraction=validation, test_runs=("a",)
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
        folds_of("blocks", {"a": 30, "b": 30}, purge_trs=12)


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
