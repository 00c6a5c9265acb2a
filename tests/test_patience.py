from __future__ import annotations

import time

import pytest

from giblet_hpc.patience import answer_within


def test_an_answer_an_error_and_silence() -> None:
    assert answer_within(30, lambda: 7, 0) == 7
    assert answer_within(0.05, lambda: time.sleep(0.5) or 7, 0) == 0
    with pytest.raises(ZeroDivisionError):
        answer_within(30, lambda: 1 // 0, 0)


def refuse() -> int:
    raise TimeoutError("its own")


def test_a_timeout_of_the_function_itself_is_its_answer() -> None:
    with pytest.raises(TimeoutError, match="its own"):
        answer_within(30, refuse, 0)
