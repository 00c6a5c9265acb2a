from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from giblet_hpc.cli import config as commands
from giblet_hpc.runs.paths import RunPaths
from tests.cli.conftest import Invoke


def test_configs_are_shown_checked_and_described(
    invoke: Invoke, demo_config: str, tmp_path: Path
) -> None:
    shown = yaml.safe_load(invoke("config", "show", demo_config, "--set", "train.lr=0.5").stdout)
    assert shown["train"]["lr"] == 0.5
    assert invoke("config", "check", demo_config).stdout == f"{demo_config}: good\n"
    (tmp_path / "bad.yaml").write_text("study: {name: x}\ntrai_n: {}\n")
    done = invoke("config", "check", demo_config, "bad.yaml", code=2)
    assert "bad.yaml" in done.stderr and "trai_n" in done.stderr
    schema = json.loads(invoke("config", "schema").stdout)
    assert "train" in schema["properties"]
    assert set(commands.config.commands) == {"show", "check", "schema"}


def test_a_runs_config_is_shown_by_its_name(invoke: Invoke, run_folder: RunPaths) -> None:
    assert yaml.safe_load(invoke("config", "show", "movie").stdout)["study"]["name"] == "demo"
    assert "config not found: film" in invoke("config", "show", "film", code=2).stderr


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("study.subjects=[01, 02]", 'quote them as the files write them, such as ["1", "2"]'),
        ("study.subjects=some", "`all`, the number of the first so many, or a list of names"),
        ("study.tr=1500", "less than or equal to 60; got 1500"),
    ],
)
def test_common_slips_say_what_was_meant(
    invoke: Invoke, demo_config: str, setting: str, said: str
) -> None:
    error = invoke("config", "check", demo_config, "--set", setting, code=2).stderr
    assert said in error
    assert error.startswith(f"error: 1 problem in {demo_config} and --set {setting}:")


def test_a_key_that_is_there_twice(invoke: Invoke, demo_config: str, tmp_path: Path) -> None:
    text = Path(demo_config).read_text()
    (tmp_path / "twice.yaml").write_text(f"{text}\nstudy:\n  name: other\n")
    error = invoke("config", "check", "twice.yaml", code=2).stderr
    assert "`study` is there twice" in error
    assert f"line {len(text.splitlines()) + 2}" in error
    (tmp_path / "merged.yaml").write_text("a: &a {x: 1}\nb:\n  <<: *a\n  <<: *a\n")
    assert "twice" not in invoke("config", "check", "merged.yaml", code=2).stderr
