"""One log, on stderr: rank 0 tells, the others warn."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from giblet_hpc import log


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    logger = logging.getLogger("giblet_hpc")
    before = (logger.handlers[:], logger.propagate, logger.level)
    yield
    logger.handlers[:], logger.propagate = before[0], before[1]
    logger.setLevel(before[2])


@pytest.mark.parametrize(("rank", "told"), [(0, 1), (3, 0)])
def test_ranks(capsys: pytest.CaptureFixture[str], rank: int, told: int) -> None:
    log.setup(rank)
    logging.getLogger("giblet_hpc.training").info("step %d", 7)
    logging.getLogger("giblet_hpc.training").warning("odd")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("step 7") == told
    assert ("[rank 3] odd" if rank else " odd") in said.err


def test_progress_in_a_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log.setup()
    monkeypatch.setattr(log, "SECONDS_BETWEEN_LINES", -1.0)
    assert list(log.progress("abc", label="video run1", total=3)) == ["a", "b", "c"]
    lines = [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["video run1: 1 of 3", "video run1: 2 of 3", "video run1: 3 done"]
