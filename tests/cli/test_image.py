from __future__ import annotations

from pathlib import Path

from giblet_hpc.cli import image as commands
from tests.cli.conftest import Invoke


def test_a_profile_without_an_image(invoke: Invoke) -> None:
    done = invoke("image", "check", "--cluster", "local", code=2)
    assert "image" in done.stderr
    assert set(commands.image.commands) == {"build", "check", "exec"}
    assert Path(__file__).parents[2] / "container" / "build.sh" == commands.BUILD
