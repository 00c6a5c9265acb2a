"""Questions to file systems that may never answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def answer_within(seconds: float, ask: Callable[[], T], otherwise: T) -> T:
    """Return what a function returns, or another value when it takes too long.

    It goes on in a thread that does not keep the process from ending: a call into a file system
    whose server is gone cannot be interrupted.

    Parameters
    ----------
    seconds : float
    ask : callable
        What it raises is raised here.
    otherwise : same as `ask` returns
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:  # noqa: BLE001 - raised by whoever waits
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError:
        # The function's own, or an answer at the last moment.
        return answer.result() if answer.done() else otherwise
