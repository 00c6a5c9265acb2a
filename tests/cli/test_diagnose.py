"""`giblet-hpc inspect` on a preprocessed study of real files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from giblet_hpc.cli import diagnose, diagnose_network, evaluate, findings, planned
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.stages import inspect, inspect_gradients
from giblet_hpc.stages.look import look_at
from giblet_hpc.stages.with_checkpoint import with_checkpoint
from tests.cli.conftest import Invoke
from tests.conftest import Cli, sets


@pytest.mark.slow
def test_a_synthetic_study_is_looked_at(
    cli: Cli, tiny_options: list[str], demo_config: str
) -> None:
    options = ["--config", demo_config, *sets(tiny_options)]
    said = cli("inspect", "data", *options).stdout
    assert "ok      film of run1: 96 s of" in said
    cli("run", "preprocess", "demo", *options)
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
    facts = json.loads(cli("inspect", "gradients", "demo", "--batches", "2", "--json").stdout)
    assert (facts["step"], facts["batches"]) == (0, 2)
    cli("run", "train", "demo")
    facts = json.loads(cli("inspect", "gradients", "demo", "--json").stdout)
    assert facts["step"] > 0
    assert set(facts["norms"]) == {"fmri", "video", "audio", "text"}
    assert "layers: " in cli("inspect", "gradients", "demo").stdout
    assert "there is no checkpoint of step 7" in cli(
        "inspect", "gradients", "demo", "--checkpoint", "7", check=False).stderr  # fmt: skip
    assert "there is no fold x" in cli(
        "inspect", "gradients", "demo", "--fold", "x", check=False).stderr  # fmt: skip
    assert "squeeze" in cli("inspect", "model", "demo").stdout
    a_checkpoint_is_looked_at(cli)
    facts = json.loads(cli("inspect", "data", "demo", "--json", check=False).stdout)
    assert {"statistics": "ok"}.items() <= {
        f["check"]: f["level"] for f in facts["findings"]
    }.items()
    assert " GiB measured" in cli("inspect", "memory", "demo").stdout
    assert "ok      weights:" in cli("inspect", "checkpoint", "demo").stdout
    facts = json.loads(cli("inspect", "checkpoint", "demo", "--json").stdout)
    assert any("gradient" in one for one in facts["tensors"])
    said = cli("inspect", "checkpoint", "demo", "--step", "7", check=False).stderr
    assert "there is no checkpoint of step 7; there are: " in said


def a_checkpoint_is_looked_at(cli: Cli) -> None:
    options = ["--num-samples", "1", "--output-dir", "out", "--device", "cpu"]
    said = json.loads(cli("evaluate", "demo", *options, "--json").stdout)
    folder = cli.folder / "out"
    assert set(said["samples"][0]["r"]) == {"01", "02", "03"}
    assert {file.suffix for file in folder.iterdir()} == {".html", ".json", ".mp4", ".npy", ".png"}
    assert "page: " in cli("evaluate", "demo", "--on", "test").stdout
    assert look_at.__module__ != with_checkpoint.__module__
    assert "there is no checkpoint of step 9999" in cli(
        "evaluate", "demo", "--checkpoint", "9999", check=False).stderr  # fmt: skip


def test_before_preprocess_there_is_nothing_to_look_at(
    invoke: Invoke, run_folder: RunPaths
) -> None:
    assert set(diagnose.inspect.commands) == {
        "alignment", "checkpoint", "data", "gradients", "memory", "model",
    }  # fmt: skip
    assert findings.preprocessed.__module__ != planned.study_of.__module__
    assert inspect.data_of.__module__ == "giblet_hpc.stages.inspect"
    assert diagnose_network.inspect_model.name == "model"
    assert invoke("evaluate", code=1).stderr.startswith("error: run movie: preprocess is not")
    assert evaluate.PARTS[0] == "validation"
    assert inspect_gradients.gradients_of.__module__ == "giblet_hpc.stages.inspect_gradients"
    for what in ("data", "alignment", "gradients"):
        assert invoke("inspect", what, code=1).stderr.startswith(
            "error: run movie: preprocess is not"
        )


def test_a_network_without_a_study(invoke: Invoke) -> None:
    """Sizes are those that a config leads one to expect."""
    file = str(Path(__file__).parents[2] / "configs" / "sherlock_production.yaml")
    said = invoke("inspect", "model", "--config", file).stdout
    assert "largest tensors: " in said
    facts = json.loads(invoke("inspect", "model", "--config", file, "--json").stdout)
    assert facts["assumed"]
    said = invoke("inspect", "memory", "--config", file, "--gpu", "a6000", "--gpus", "8").stdout
    assert "not measured yet" in said
