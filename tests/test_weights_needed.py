"""Which trained weights a config needs, and whether they are here."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from giblet_hpc.cli.main import main
from giblet_hpc.cli.weights import weights_command
from giblet_hpc.config import io
from giblet_hpc.weights import needed_weights
from tests import pretrained


def test_what_is_here_and_what_is_not(tmp_path: Path, demo_config: str) -> None:
    folder = pretrained.image_model(tmp_path / "image")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    options = [f"features.video.encoder={folder}", "features.text.encoder=nobody/nothing"]
    here, absent = needed_weights(io.load(Path(demo_config), options))
    assert (here.section, here.here, here.licence) == ("video_encoder", True, "apache-2.0")
    assert here.bytes > 10_000
    assert (absent.section, absent.here, absent.source) == (
        "text", False, "hf download nobody/nothing",
    )  # fmt: skip


def test_the_command_says_so(tmp_path: Path, demo_config: str) -> None:
    done = CliRunner().invoke(main, ["weights", demo_config])
    assert (done.exit_code, done.output) == (0, "none are needed\n")
    assert weights_command.name == "weights"
    wanted = ["weights", demo_config, "--set", "features.text.encoder=nobody/nothing"]
    done = CliRunner().invoke(main, wanted)
    assert done.exit_code == 1
    assert "features.text: nobody/nothing: not on this machine" in done.output
    assert "hf download nobody/nothing" in done.output
    done = CliRunner().invoke(main, [*wanted, "--json"])
    assert json.loads(done.output)[0]["here"] is False
