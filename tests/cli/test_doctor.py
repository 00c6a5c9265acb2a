from __future__ import annotations

import json
from pathlib import Path

from giblet_hpc.cli import doctor
from giblet_hpc.runs.paths import RunPaths
from tests.cli.conftest import Invoke


def test_findings_as_text_and_as_facts(invoke: Invoke, run_folder: RunPaths) -> None:
    found = json.loads(invoke("doctor", "--cluster", "local", "--json").stdout)
    assert {"check", "level", "seen", "fix"} <= set(found[0])
    assert "who else" in {finding["check"] for finding in found}
    assert "who else" in invoke("doctor", "--cluster", "local").stdout


def test_a_broken_run_has_no_say(run_folder: RunPaths, tmp_path: Path) -> None:
    store = run_folder.load_config().study.store
    bad = tmp_path / "runs" / "bad"
    bad.mkdir()
    (bad / "run.yaml").write_text("[")
    (bad / "format.json").write_text(run_folder.format.read_text())
    assert doctor._stores(tmp_path / "runs") == [store]
