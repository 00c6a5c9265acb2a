"""A rank writes down its last collectives when its supervisor asks, and only then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from giblet_hpc.runs import beacon
from giblet_hpc.runs.attempt_paths import AttemptPaths
from giblet_hpc.runs.environment import ATTEMPT, LOCAL
from giblet_hpc.training import flight_recorder

WAITING = """
import time
import torch, torch.distributed as dist
from giblet_hpc.training import flight_recorder
dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
for size in range(1, 60):
    dist.all_reduce(torch.ones(size))
flight_recorder.answer(3)
print("waiting", flush=True)
time.sleep(600)
"""


def test_the_last_collectives_on_request(tmp_path: Path) -> None:
    paths = AttemptPaths(tmp_path)
    assert flight_recorder.LAST == 50
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING],
        env={**os.environ, LOCAL: str(tmp_path), ATTEMPT: str(tmp_path),
             "TORCH_FR_BUFFER_SIZE": "100"},
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"waiting\n"
        time.sleep(2 * flight_recorder.POLL_SECONDS)
        assert not paths.collectives(3).exists()
        beacon.ask_for_trace(tmp_path)
        end = time.monotonic() + 30
        while not paths.collectives(3).exists() and time.monotonic() < end:
            time.sleep(0.1)
        found = json.loads(paths.collectives(3).read_text())
    finally:
        process.kill()
        process.communicate()
    assert found["rank"] == 3
    sizes = [one["input_sizes"] for one in found["collectives"]]
    assert sizes == [[[n]] for n in range(10, 60)]
    assert {one["profiling_name"] for one in found["collectives"]} == {"gloo:all_reduce"}
