"""The live view: what it shows of a run, in a terminal and where there is none."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable

import pytest
from rich.console import Console

from giblet_hpc.jobs.inspect import status, watch
from giblet_hpc.jobs.record.attempts import begin
from giblet_hpc.jobs.schedulers.base import Place
from giblet_hpc.runs.paths import RunPaths
from tests.test_health import rows_of

CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture
def training(paths: RunPaths) -> RunPaths:
    rows = rows_of(30)
    rows[-1] |= {"gpu/0/percent_busy": 90, "gpu/1/percent_busy": 70}
    rows += [{**rows[-2], "kind": "train", "gpu/0/percent_busy": 90, "gpu/1/percent_busy": 70}]
    paths.metrics().write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    attempt = begin(paths, Place("local", "1"), "train", {"part": "", "nodes": 2})
    attempt.note(started=0.0)
    attempt.close("crashed", reason="out of GPU memory (rank 1 on n2)\x1b[2J", step=40)
    paths.update_state("preprocess", status="complete")
    paths.update_state(
        "train", status="interrupted", step=40, total_steps=200, reason="out of GPU memory"
    )
    return paths


def seen(paths: RunPaths, *, terminal: bool, sleep: Callable[[float], None] | None = None) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, color_system=None)
    watch.watch([paths], every=0.0, console=console, sleep=sleep or (lambda _: None))
    return out.getvalue()


def test_a_screen(training: RunPaths) -> None:
    text = CONTROL.sub("", seen(training, terminal=True))
    assert "a run" in text
    assert re.search(r"train +interrupted", text)
    assert re.search(r"(?m)^│ loss +[▁▂▃▄▅▆▇█]{8,} +[\d.]+ +from", text)
    assert re.search(r"r +[▁▂▃▄▅▆▇█]+ +0\.387", text)
    assert "GPUs: percent busy 80" in text
    assert "train, attempt 1: crashed: out of GPU memory (rank 1 on n2)" in text
    assert "next: giblet-hpc resubmit" in text
    assert max(map(len, text.splitlines())) <= 100


def test_no_file_types_into_the_terminal(training: RunPaths) -> None:
    assert "\x1b[2J" not in seen(training, terminal=True)
    assert "\x1b" not in seen(training, terminal=False)


def test_lines_come_once_as_they_change(
    training: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [3]
    monkeypatch.setattr(watch, "is_over", lambda _: left[0] == 0)

    def later(_: float) -> None:
        left[0] -= 1
        if left[0] == 1:
            training.update_state("train", status="stopped", reason="asked to stop")

    lines = seen(training, terminal=False, sleep=later).splitlines()
    assert len(lines) == len(set(lines))
    assert "a run train: interrupted; out of GPU memory" in lines
    assert "a run train: stopped; asked to stop" in lines
    assert any(line.startswith("a run figures: loss ") for line in lines)
    assert any(
        line.startswith("a run event: ") and "attempt 1: began on 2" in line for line in lines
    )


def test_a_run_that_cannot_be_read(paths: RunPaths) -> None:
    paths.config.write_text("study: [")
    (paths.root / "state").mkdir(exist_ok=True)
    (paths.root / "state" / "train.json").write_text("{")
    for terminal in (True, False):
        assert "a run" in seen(paths, terminal=terminal)


def test_names_of_files_are_no_markup(training: RunPaths) -> None:
    rows = (
        '{"kind": "train", "loss": NaN}\n{"kind": "train", "loss": 2.5, "gpu/0/a\\u001b[2J": 1}\n'
    )
    training.metrics("a[b] [red]\x1b[2J").write_text(rows)
    text = seen(training, terminal=True)
    assert "a[b] [red]" in text
    assert "\x1b[2J" not in text


def test_a_run_that_is_held_is_not_over(
    training: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between an attempt's end and the next one."""
    assert watch.is_over(watch.view(training))
    held = {**watch.view(training), "holder": "slurm job 7"}
    assert not watch.is_over(held)
    assert not watch.is_over({"error": status.SILENT, "stages": {}})
    assert watch.is_over({"error": "cannot be read", "stages": {}})


def test_a_curve_is_no_longer_than_its_values() -> None:
    assert watch.sparkline([], 10) == ""
    assert len(watch.sparkline(list(range(1000)), 40)) == 40
    assert watch.sparkline([5, 1], 40) == "█▁"
