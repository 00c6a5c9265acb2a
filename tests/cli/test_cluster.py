from __future__ import annotations

import json
from pathlib import Path

import pytest

from giblet_hpc.cli import cluster as commands
from giblet_hpc.jobs.schedulers import registry
from tests.cli.conftest import Invoke


def test_profiles_are_listed_shown_and_described(invoke: Invoke, tmp_path: Path) -> None:
    folder = tmp_path / "settings" / "giblet-hpc" / "clusters"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("partition: gpu\n")
    assert "mine" in invoke("cluster", "list").stdout
    shown = json.loads(invoke("cluster", "show", "mine", "--json").stdout)
    assert (shown["name"], shown["partition"]) == ("mine", "gpu")
    assert "partition: gpu" in invoke("cluster", "show", "mine").stdout
    assert "partition" in json.loads(invoke("cluster", "schema").stdout)["properties"]
    (folder / "mine.yaml").chmod(0o666)
    done = invoke("cluster", "show", "mine", code=2)
    assert "everybody can write to" in done.stderr and "chmod go-w" in done.stderr
    assert set(commands.cluster.commands) == {"list", "show", "schema", "detect"}


def test_a_machine_without_a_scheduler_has_nothing_to_detect(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "installed", lambda: None)
    assert "no scheduler that is known" in invoke("cluster", "detect", code=1).stderr
