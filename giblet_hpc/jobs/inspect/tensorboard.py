"""TensorBoard on the loopback interface, and the line that tunnels to it."""

from __future__ import annotations

import getpass
import secrets
import socket
import sys
from collections.abc import Sequence

from giblet_hpc.jobs.schedulers import registry
from giblet_hpc.runs.paths import RunPaths

PREFIX = "GIBLET_TENSORBOARD_PREFIX"
"""Path under which the curves are."""


def free_port() -> int:
    """Return a port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def command(runs: Sequence[RunPaths], port: int) -> list[str]:
    """Return the command that serves the runs' curves on loopback only.

    Its environment holds the prefix, as everybody on the machine sees a command's words.
    """
    folders = ",".join(f"{paths.name}:{paths.tensorboard}" for paths in runs)
    return [
        sys.executable,
        "-P",
        "-m",
        "giblet_hpc.jobs.inspect.curves",
        "--host=127.0.0.1",
        f"--port={port}",
        f"--logdir_spec={folders}",
        # The faster reader listens on a port of its own, to everybody.
        "--load_fast=false",
    ]


def new_prefix() -> str:
    """Return a path that nobody guesses: all users of a machine reach its loopback interface."""
    return f"/{secrets.token_urlsafe(16)}"


def tunnel(port: int, login: str | None = None) -> str:
    """Return the line to paste on the user's own computer.

    Parameters
    ----------
    port : int
    login : str, optional
        ``user@host`` of this machine; in a job, of the login node to go through.
    """
    forward = f"ssh -N -L {port}:127.0.0.1:{port}"
    scheduler = registry.surrounding() or registry.of("local")
    if submitted_from := scheduler.submit_host():
        through = login or f"{getpass.getuser()}@{submitted_from}"
        return f"{forward} -J {through} {getpass.getuser()}@{socket.gethostname()}"
    return f"{forward} {login or f'{getpass.getuser()}@{socket.getfqdn()}'}"
