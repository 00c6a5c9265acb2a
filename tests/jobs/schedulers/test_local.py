from __future__ import annotations

import os
import subprocess

from giblet_hpc.jobs.schedulers import registry
from giblet_hpc.jobs.schedulers.local import Local, process_state


def test_a_job_is_a_process() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    found = Local().jobs([str(os.getpid()), str(ended.pid)], "anybody")
    assert list(found) == [str(os.getpid())]
    assert process_state(1)
    assert process_state(ended.pid) == ""


def test_nothing_queues_here() -> None:
    assert not Local().queues
    assert not Local().requeue("7")
    assert not Local().cancel(["7"])
    assert Local().own_job().job == str(os.getpid())
    assert Local().end_time() is None


def test_the_registry_lists_what_there_is() -> None:
    assert [registry.of(name).name for name in registry.BUILT_IN] == list(registry.BUILT_IN)
    assert registry.here().scheduler == "local"
