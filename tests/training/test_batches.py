"""Batches: the right TRs, the next one collected meanwhile, memory used again."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from giblet_hpc.scans.tables import Columns
from giblet_hpc.splits import Block
from giblet_hpc.training.batches import Ahead, Place, WindowReader
from giblet_hpc.training.feed import RunArrays, StudyArrays
from giblet_hpc.training.windows import Window

CPU = torch.device("cpu")


def reader_of(trs: int) -> WindowReader:
    course = np.arange(50, dtype=np.float32)
    run = RunArrays(
        {"text": course[:, None]}, np.stack([course[:, None]] * 2), np.ones((2, 50), bool)
    )
    run.valid[1, 45:] = False
    study = StudyArrays({"a": run}, ("x", "y"), np.ones(1, bool), Columns(1), {})
    return WindowReader(study, {"a": run.stimulus}, trs=trs, context=3, device=CPU)


def test_windows_hold_the_right_trs_and_nothing_from_outside_their_block() -> None:
    reader = reader_of(8)
    batch = reader([Window(Block("a", 10, 30), 20), Window(Block("a", 10, 30), 11)])
    np.testing.assert_array_equal(batch.stimulus["text"][0, :, 0], np.arange(17, 28))
    np.testing.assert_array_equal(batch.bold[0, :, 0, 0], np.arange(20, 28))
    np.testing.assert_array_equal(batch.inside[1], [False, False] + [True] * 9)
    assert not batch.stimulus["text"][1, :2].any()
    batch = reader([Window(Block("a", 40, 50), 44)])
    np.testing.assert_array_equal(batch.valid[0, :, 0], [True] * 6 + [False] * 2)
    np.testing.assert_array_equal(batch.valid[0, :, 1], [True] + [False] * 7)


def windows_of(place: Place) -> list[Window]:
    step, part = place
    return [Window(Block("a", 0, 50), (7 * step + 3 * part + n) % 46) for n in range(2)]


def test_the_next_batch_is_collected_while_one_is_in_use() -> None:
    reader = reader_of(4)
    asked: list[Place] = []
    collected = threading.Event()

    def windows(place: Place) -> list[Window]:
        asked.append(place)
        if len(asked) == 2:
            collected.set()
        return windows_of(place)

    ahead = Ahead(reader, windows, parts=2)
    first = ahead.take((0, 0))
    assert collected.wait(10), "nobody asked for it yet"
    expected = reader(windows_of((0, 0)))
    for a, b in zip(first[1:], expected[1:], strict=True):
        assert torch.equal(a, b)
    ahead.close()
    assert asked[:2] == [(0, 0), (0, 1)]


def test_any_order_gives_the_same_batches_in_two_places_of_memory() -> None:
    reader = reader_of(4)
    ahead = Ahead(reader, windows_of, parts=2)
    addresses = set()
    # In order, then back to an earlier step, as after a step whose gradient is not finite.
    places = [(step, part) for step in range(6) for part in (0, 1)] + [(2, 0), (2, 1), (9, 0)]
    for place in places:
        batch, expected = ahead.take(place), reader(windows_of(place))
        assert torch.equal(batch.bold, expected.bold)
        assert torch.equal(batch.stimulus["text"], expected.stimulus["text"])
        assert torch.equal(batch.inside, expected.inside)
        assert torch.equal(batch.valid, expected.valid)
        addresses.add(batch.bold.data_ptr())
    ahead.close()
    assert len(addresses) == 2
    assert ahead.waited > 0


def test_a_failure_to_read_reaches_training() -> None:
    def windows(place: Place) -> list[Window]:
        if place == (1, 0):
            raise OSError("stale handle")
        return windows_of(place)

    ahead = Ahead(reader_of(4), windows, parts=1)
    ahead.take((0, 0))
    with pytest.raises(OSError, match="stale handle"):
        ahead.take((1, 0))
    ahead.close()
