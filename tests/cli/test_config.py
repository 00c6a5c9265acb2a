from __future__ import annotations

import json
from pathlib import Path

import yaml

from giblet_hpc.cli import config as commands
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
