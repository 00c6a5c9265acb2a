"""Training goes back from steps without finite gradients, and on with other data."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from giblet_hpc.errors import JobError
from giblet_hpc.runs import checkpoints
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.training import data_order, loop
from giblet_hpc.training.strategy import DataParallel
from giblet_hpc.training.world import World
from tests.training.test_loop import train

Places = list[tuple[int, int]]


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Places:
    """Of each step that is made: its number, and its place in the data's order."""
    seen: Places = []
    original = loop.Trainer._train_step

    def noted(trainer: loop.Trainer) -> dict[str, float]:
        seen.append((trainer.step, trainer.step + trainer._order.shift))
        return original(trainer)

    monkeypatch.setattr(loop.Trainer, "_train_step", noted)
    monkeypatch.setattr(loop, "MAX_BAD_STEPS", 2)
    return seen


def spoil(monkeypatch: pytest.MonkeyPatch, places: Places, *bad: int) -> None:
    """Make gradients at some places of the data's order not finite."""
    original = DataParallel.clip

    def clip(strategy: DataParallel, model: nn.Module, limit: float) -> float:
        norm = original(strategy, model, limit)
        return float("nan") if places[-1][1] in bad else norm

    monkeypatch.setattr(DataParallel, "clip", clip)


def test_it_goes_back_to_before_the_bad_steps_and_on_with_the_data_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: Places,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    spoil(monkeypatch, places, 5, 6)
    with caplog.at_level(logging.WARNING):
        finished, _ = train(tmp_path)
    assert finished
    # The checkpoint of step 6 comes after a bad step; that of step 4, an epoch's end, does not.
    assert places[:9] == [*((n, n) for n in range(7)), (4, 7), (5, 8)]
    assert places[-1] == (15, 18)
    assert "steps 5 to 6 had gradients that are not finite: back to step 4" in caplog.text
    rows = [json.loads(line) for line in RunPaths(tmp_path).metrics("").read_text().splitlines()]
    steps = [row["step"] for row in rows if row["kind"] == "train"]
    assert steps == sorted(set(steps)), "each step is recorded once"
    assert list(RunPaths(tmp_path).root.glob("set-aside/*/step-00000006"))


def test_stopped_after_going_back_it_goes_on_in_the_same_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: Places
) -> None:
    spoil(monkeypatch, places, 5, 6)
    _, whole = train(tmp_path / "whole")
    undisturbed = list(places)
    places.clear()
    asked = iter([False] * 9 + [True])
    finished, _ = train(tmp_path / "stopped", should_stop=lambda: next(asked))
    assert not finished
    finished, resumed = train(tmp_path / "stopped")
    assert finished
    assert places == undisturbed
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_single_bad_steps_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: Places
) -> None:
    spoil(monkeypatch, places, 5, 7, 9)
    assert train(tmp_path)[0]
    assert places == [(n, n) for n in range(16)]


def test_it_gives_up_when_going_back_does_not_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: Places
) -> None:
    spoil(monkeypatch, places, *range(5, 100))
    with pytest.raises(JobError, match=r"steps 4 to 5 had .* not finite, after going back 2 times"):
        train(tmp_path)
    newest = checkpoints.newest(RunPaths(tmp_path).checkpoints())
    assert newest is not None
    assert checkpoints.step_of(newest) == 4
    with pytest.raises(JobError, match="after going back 2 times"):
        train(tmp_path)


def test_without_a_checkpoint_there_is_nowhere_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: Places
) -> None:
    spoil(monkeypatch, places, 0, 1)
    with pytest.raises(JobError, match="steps 0 to 1 had gradients that are not finite$"):
        train(tmp_path)
    order = data_order.DataOrder(tmp_path, World(0, 0, 1, torch.device("cpu")))
    order.read()
    assert order.shift == 0
