"""Figures of training, written down once, also over resumes and kills."""

from __future__ import annotations

import json
from pathlib import Path

from giblet_hpc.training.record import Recorder, StepTimer


def steps(file: Path) -> list[int]:
    return [json.loads(line)["step"] for line in file.read_text().splitlines()]


def record(tmp_path: Path, *numbers: int, from_step: int) -> Path:
    file = tmp_path / "metrics.jsonl"
    recorder = Recorder(file, tmp_path / "tensorboard", from_step=from_step)
    for step in numbers:
        recorder.add("train", step, step / 4, {"loss": 1.0 / step, "loss/fmri": 0.5})
    recorder.close()
    return file


def test_what_is_made_again_is_recorded_once(tmp_path: Path) -> None:
    assert steps(record(tmp_path, 10, 20, 30, from_step=0)) == [10, 20, 30]
    file = record(tmp_path, 30, 40, from_step=20)
    assert steps(file) == [10, 20, 30, 40]
    row = json.loads(file.read_text().splitlines()[0])
    assert row == {"kind": "train", "step": 10, "epoch": 2.5, "loss": 0.1, "loss/fmri": 0.5}


def test_a_line_that_a_kill_has_torn_is_left_out(tmp_path: Path) -> None:
    file = record(tmp_path, 10, 20, from_step=0)
    file.write_text(file.read_text() + '{"kind": "train", "ste')
    assert steps(record(tmp_path, 30, from_step=20)) == [10, 20, 30]


def test_the_pace_is_a_median() -> None:
    timer = StepTimer()
    assert timer.figures() == {"step_seconds": 0.0, "data_wait": 0.0}
    for seconds in (1.0, 2.0, 90.0):
        timer.step(seconds, seconds / 3)
    assert timer.figures() == {"step_seconds": 2.0, "data_wait": 0.3333}
