"""What all commands share."""

from __future__ import annotations

import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from giblet_hpc.cli import common
from giblet_hpc.errors import DataError, JobError
from giblet_hpc.runs.paths import RunPaths
from tests.cli.conftest import Invoke


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DataError("bad \x1b[2J", hint="mend it"), 2, "error: bad \\x1b[2J\n\nhint: mend it\n"),
        (JobError("gone"), 1, "error: gone\n"),
        (OSError(28, "No space left on device", "/x"), 2, "the disk is full"),
        (OSError(5, "Input/output error", "/x"), 1, "error: /x: Input/output error\n"),
    ],
)
def test_errors_are_one_screen(error: Exception, code: int, said: str) -> None:
    group = common.Group("main")

    @group.command("fail")
    def fail() -> None:
        raise error

    done = CliRunner().invoke(group, ["fail"])
    assert done.exit_code == code
    assert said in done.stderr


def test_names_are_completed(invoke: Invoke, run_folder: RunPaths) -> None:
    context = click.Context(click.Command("x"))
    assert common.run_name(context, click.Argument(["name"]), "mo") == ["movie"]
    assert common.run_name(context, click.Argument(["name"]), "x") == []
    assert "local" in common.cluster_name(context, click.Argument(["name"]), "lo")


def test_what_runs_make_is_private() -> None:
    before = os.umask(0)
    try:
        common.restrict_umask()
        assert os.umask(0) == 0o077
    finally:
        os.umask(before)


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "giblet_hpc.cli.__main__", "--version"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("giblet-hpc, version ")
