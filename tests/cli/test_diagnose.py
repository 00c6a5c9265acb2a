"""`giblet-hpc inspect` on a preprocessed study of real files."""

from __future__ import annotations

import json

import pytest

from giblet_hpc.cli import diagnose
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.stages import inspect
from tests.cli.conftest import Invoke
from tests.conftest import Cli, sets


@pytest.mark.slow
def test_a_synthetic_study_is_looked_at(
    cli: Cli, tiny_options: list[str], demo_config: str
) -> None:
    cli("run", "preprocess", "demo", "--config", demo_config, *sets(tiny_options))
    said = cli("inspect", "data", "demo", check=False).stdout
    assert "ok      video of run1: 64 TRs of" in said
    assert "warn    steps: " in said and "networks seldom learn in so few" in said
    facts = json.loads(cli("inspect", "data", "demo", "--json", check=False).stdout)
    assert facts["arrays"]["stimulus/run1/video"]["trs"] == 64
    assert set(facts["first_losses"]["variance"]) == {"fmri", "video", "audio", "text"}
    facts = json.loads(cli("inspect", "alignment", "demo", "--json", check=False).stdout)
    assert len(facts["curves"]) == 8, "two runs: three subjects and their mean"
    assert {one["check"] for one in facts["findings"]} >= {"lag of run1", "subjects of run2"}
    assert "has no checkpoint yet" in cli("inspect", "checkpoint", "demo", check=False).stderr
    cli("run", "train", "demo")
    assert "ok      weights:" in cli("inspect", "checkpoint", "demo").stdout
    facts = json.loads(cli("inspect", "checkpoint", "demo", "--json").stdout)
    assert any("gradient" in one for one in facts["tensors"])
    said = cli("inspect", "checkpoint", "demo", "--step", "7", check=False).stderr
    assert "there is no checkpoint of step 7; there are: " in said


def test_before_preprocess_there_is_nothing_to_look_at(
    invoke: Invoke, run_folder: RunPaths
) -> None:
    assert set(diagnose.inspect.commands) == {"alignment", "checkpoint", "data"}
    assert inspect.data_of.__module__ == "giblet_hpc.stages.inspect"
    for what in ("data", "alignment"):
        assert invoke("inspect", what, code=1).stderr.startswith(
            "error: run movie: preprocess is not"
        )
