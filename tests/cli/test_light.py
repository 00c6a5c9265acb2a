"""The command line stays light: heavy packages are imported inside jobs only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from giblet_hpc.cli.main import COMMANDS, main

HEAVY = ["torch", "numpy", "zarr", "pandas", "scipy", "sklearn", "transformers", "nibabel", "av"]
DEMO = Path(__file__).parents[2] / "configs" / "demo.yaml"


def commands(group: object, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [before]
    if isinstance(group, click.Group):
        context = click.Context(group)
        for name in sorted(group.list_commands(context)):
            found += commands(group.get_command(context, name), (*before, name))
    return found


def test_the_table_of_commands_says_what_each_says_of_itself() -> None:
    context = click.Context(main)
    for name, (_, text) in COMMANDS.items():
        command = main.get_command(context, name)
        assert command is not None
        assert command.name == name
        said = " ".join((command.help or "").split())
        assert said.startswith(text), name
    assert list(COMMANDS) == sorted(COMMANDS)


def test_a_list_of_commands_loads_none_of_them(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom giblet_hpc.cli.main import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "ours = sorted(m for m in sys.modules if m.startswith('giblet_hpc'))\n"
        "assert ours == ['giblet_hpc', 'giblet_hpc.cli', 'giblet_hpc.cli.common', "
        "'giblet_hpc.cli.main', 'giblet_hpc.errors', 'giblet_hpc.printable', 'giblet_hpc.trust'], ours\n"
        "assert 'pydantic' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_status_loads_neither_schema_nor_submitit(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom giblet_hpc.cli.main import main\n"
        f"main(['status', '--runs', {str(tmp_path)!r}], standalone_mode=False)\n"
        "loaded = {'pydantic', 'yaml', 'submitit', 'rich'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        *((*path, "--help") for path in commands(main)),
        ("config", "check", str(DEMO)),
        ("config", "schema"),
        ("status", "--runs", "nowhere"),
        ("submit", "pipeline", "--config", str(DEMO), "--dry-run", "--runs", "nowhere"),
    ],
    ids=" ".join,
)
def test_no_heavy_imports(arguments: tuple[str, ...], tmp_path: Path) -> None:
    script = (
        "import sys\nfrom giblet_hpc.cli.main import main\n"
        f"main({list(arguments)!r}, standalone_mode=False)\n"
        f"loaded = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not list(tmp_path.iterdir())


def test_a_job_waits_for_no_package_that_it_may_not_need() -> None:
    """Each of them takes about a second, on every rank, at every start."""
    script = (
        "import sys\n"
        "import giblet_hpc.stages.preprocess, giblet_hpc.stages.train, giblet_hpc.stages.evaluate\n"
        "slow = {'scipy.stats', 'sklearn', 'sympy', 'torch.distributed.tensor', 'himalaya'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
