"""Trainings that cannot succeed are named, with a number and a remedy; one that can is left alone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from giblet_hpc import health
from giblet_hpc.config import io
from giblet_hpc.errors import ConfigError
from giblet_hpc.findings import Finding
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.scans.tables import Columns
from giblet_hpc.training.feed import RunArrays, StudyArrays
from tests.training import test_loop

Findings = dict[str, Finding]


def planted(scale: float = 1.0, offset: float = 0.0, seed: int = 0) -> StudyArrays:
    """A study whose scans follow the picture's brightness, in any units."""
    random = np.random.default_rng(seed)
    level = random.uniform(40, 215, 120)
    video = np.clip(
        level[:, None, None, None, None] + random.normal(0, 9, (120, 2, 18, 32, 3)), 0, 255
    )
    course = np.roll(level - level.mean(), 4) / level.std()
    bold = course[:, None] + random.standard_normal((120, 5))
    run = RunArrays(
        {"video": video.astype(np.uint8)}, (scale * bold[None] + offset).astype(np.float32),
        np.ones((1, 120), bool),
    )  # fmt: skip
    return StudyArrays({"run1": run}, ("x",), np.ones(5, bool), Columns(5), {})


@pytest.fixture
def trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Findings, dict[str, Any]]]:
    """Train on a study, and look at its health."""

    def run(study: StudyArrays, *settings: str) -> tuple[Findings, dict[str, Any]]:
        monkeypatch.setattr(test_loop, "study", lambda: study)
        options = ("train.epochs=12", "train.log_every=2", "train.warmup_epochs=1", *settings)
        test_loop.train(tmp_path / "run", *options)
        paths = RunPaths(tmp_path / "run")
        rows = [json.loads(line) for line in paths.metrics("").read_text().splitlines()]
        config = paths.load_config()
        judged = health.Health(config, rows, total_steps=max(row["step"] for row in rows))
        return {one.check: one for one in judged.findings()}, paths.stage_state("train")

    return run


@pytest.mark.parametrize("seed", range(6))
def test_a_training_that_can_succeed(trained: Callable[..., Any], seed: int) -> None:
    found, state = trained(planted(seed=seed), f"train.seed={seed}", "health.fewest_steps=10")
    assert [one for one in found.values() if one.level in ("warn", "fail")] == []
    assert not state.get("health")


def test_scans_in_scanner_units_with_raw_errors(trained: Callable[..., Any]) -> None:
    found, state = trained(planted(scale=300, offset=9000), "loss.normalise=none")
    shares = found["component shares"]
    assert shares.level == "fail"
    assert "fmri is 99.99" in shares.seen or "fmri is 100 %" in shares.seen
    assert "loss.normalise: variance" in shares.fix
    assert found["gradient norm"].level == "fail"
    assert any("fmri is" in line for line in state["health"]), "said while it trained"


def test_a_study_that_is_stopped_when_it_cannot_succeed(trained: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="cannot succeed: component shares: fmri is") as found:
        trained(planted(scale=300, offset=9000), "loss.normalise=none",
                "train.stop_when_unhealthy=true")  # fmt: skip
    assert "loss.normalise: variance" in found.value.hint


def rows_of(epochs: int, **courses: Callable[[float], float]) -> list[dict[str, Any]]:
    """Figures of a training of ten steps an epoch, each a function of the epoch."""
    usual: dict[str, Callable[[float], float]] = {
        "loss": lambda e: 1.2 - 0.3 * e / (1 + e),
        "loss/fmri": lambda e: 1.0 - 0.2 * e / (1 + e),
        "loss/video": lambda e: 0.2 - 0.1 * e / (1 + e),
        "gradient_share/fmri": lambda e: 0.6,
        "gradient_norm": lambda e: 0.5,
        "fmri_error": lambda e: 1.0 - 0.3 * e / (1 + e),
        "r": lambda e: 0.4 * e / (1 + e),
    }
    usual |= courses
    rows = []
    for epoch in range(1, epochs + 1):
        for kind in ("train", "validation"):
            late = ("fmri_error", "r")
            names = [n for n in usual if (n in late) == (kind == "validation")]
            values = {name: usual[name](epoch) for name in names}
            rows.append({"kind": kind, "step": 10 * epoch, "epoch": float(epoch), **values})
    return rows


def judge(demo_config: str, rows: list[dict[str, Any]], *settings: str, **facts: float) -> Findings:
    config = io.load(Path(demo_config), settings)
    judged = health.Health(config, rows, total_steps=10 * config.train.epochs, **facts)
    return {one.check: one for one in judged.findings()}


def test_figures_of_a_good_training(demo_config: str) -> None:
    found = judge(demo_config, rows_of(30), step_seconds=0.1, data_wait=0.01)
    assert {one.level for one in found.values()} <= {"ok", "skipped"}
    assert found["GPUs"].level == "skipped"


def scattered(by: float, epoch: float) -> float:
    return 1.5 + by * math.sin(7 * epoch)


def test_losses_that_scatter_say_nothing_of_a_fall_yet(demo_config: str) -> None:
    """Of single batches; the same losses without scatter do."""
    for scatter, level in ((0.3, "skipped"), (0.0001, "fail")):
        rows = rows_of(12, loss=partial(scattered, scatter))
        assert judge(demo_config, rows)["fall of the loss"].level == level


def test_by_which_epoch_the_loss_had_fallen(demo_config: str) -> None:
    rows = rows_of(30, loss=lambda e: 2.0 - 0.05 * e)
    assert health.falls([row for row in rows if row["kind"] == "train"]) == {
        0.1: 5,
        0.2: 9,
        0.5: 21,
    }
    assert "; 10 % by epoch 5, 20 % by epoch 9, 50 % by epoch 21" in (
        judge(demo_config, rows)["fall of the loss"].seen
    )
    assert health.falls([]) == {}
    assert health.falls([{"loss": 1.0, "epoch": 1.0}, {"loss": 0.95, "epoch": 2.0}]) == {}


def test_losses_that_are_not_numbers(demo_config: str) -> None:
    """A step that is not finite is skipped, but its loss is recorded."""
    rows = rows_of(30)
    rows[2]["loss"] = rows[-2]["loss"] = math.nan
    assert judge(demo_config, rows)["fall of the loss"].level == "ok"
    every = [{**row, "loss": math.inf} if row["kind"] == "train" else row for row in rows]
    assert judge(demo_config, every)["fall of the loss"].level == "fail"


def test_nothing_is_said_before_there_is_something_to_see(demo_config: str) -> None:
    found = judge(demo_config, [])
    assert {one.level for one in found.values()} <= {"ok", "skipped"}


@pytest.mark.parametrize(
    ("check", "level", "said", "courses"),
    [
        ("component shares", "fail", "video is 99.9", {"loss/video": lambda e: 5000.0}),
        ("gradient of the scans", "fail", "0.3 %", {"gradient_share/fmri": lambda e: 0.003}),
        ("fall of the loss", "fail", "in 30 epochs", {"loss": lambda e: 720 - e / 1000}),
        ("gradient norm", "fail", "4e+03", {"gradient_norm": lambda e: 4000.0}),
        ("gradient norm", "fail", "0 (cut at 1)", {"gradient_norm": lambda e: 0.0}),
        ("validation", "warn", "it has risen since", {"fmri_error": lambda e: 0.5 + abs(e - 9) / 50}),
        ("r of validation", "fail", "an unrelated prediction", {"r": lambda e: 0.0013}),
        ("GPUs", "warn", "4 % busy", {"gpu/0/percent_busy": lambda e: 4.0}),
        ("GPUs", "warn", "91 degrees", {"gpu/1/celsius": lambda e: 91.0}),
    ],
)  # fmt: skip
def test_what_trainings_were_lost_by(
    demo_config: str, check: str, level: str, said: str, courses: dict[str, Any]
) -> None:
    found = judge(demo_config, rows_of(30, **courses))
    assert (found[check].level, said in found[check].seen) == (level, True), found[check]
    assert found[check].fix
    others = [one.check for one in found.values() if one.level == "fail" and one.check != check]
    assert others == []


def test_a_warm_up_that_does_not_end(demo_config: str) -> None:
    rows = rows_of(3)
    found = judge(demo_config, rows, "train.warmup_epochs=10", "train.epochs=50",
                  step_seconds=5400.0)  # fmt: skip
    assert found["warm-up"].level == "fail"
    assert "10 of 50 epochs, 100 steps, 150.0 h at this pace" in found["warm-up"].seen
    found = judge(demo_config, rows, "train.warmup_epochs=20", "train.epochs=50", step_seconds=0.1)
    assert found["warm-up"].level == "warn"
    assert found["fall of the loss"].level == "skipped", "the rate is not up yet"


def test_data_that_come_too_slowly(demo_config: str) -> None:
    found = judge(demo_config, rows_of(5), step_seconds=1.0, data_wait=0.4)
    assert (found["data"].level, "40 %" in found["data"].seen) == ("warn", True)


def test_a_row_for_each_validation() -> None:
    table = health.epoch_table(rows_of(3, lr=lambda e: e / 10))
    assert [row["epoch"] for row in table] == [1, 2, 3]
    assert [row["lr"] for row in table] == [0.1, 0.2, 0.3]
    assert table[1]["loss"] == pytest.approx(1.2 - 0.3 * 2 / 3)
