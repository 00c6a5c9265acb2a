"""`giblet-hpc init`: a config is written once, and what was found is told."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from giblet_hpc.cli import init
from giblet_hpc.cli.main import main
from giblet_hpc.config import io


def test_an_existing_file_is_never_replaced(study_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("mine")
    done = CliRunner().invoke(main, ["init", str(study_folder), "-o", str(file)])
    assert done.exit_code == 2
    assert "exists already" in done.output
    assert init.init_command.name == "init"
    assert file.read_text() == "mine"
    new = tmp_path / "new" / "study.yaml"
    done = CliRunner().invoke(main, ["init", str(study_folder), "-o", str(new), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["config"] == str(new)
    assert io.load(new).bold.files == "sub-{subject}_{run}.nii.gz"
