"""Figures of GPUs, as nvidia-smi says them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence


def query(fields: Sequence[str], *, gpu: str = "", seconds: float) -> list[list[str]]:
    """Return each GPU's fields as text; nothing where nvidia-smi does not answer.

    Parameters
    ----------
    fields : sequence of str
        As `nvidia-smi --help-query-gpu` names them.
    gpu : str
        UUID of one of them; all by default.
    seconds : float
        How long it may take.
    """
    chosen = ["-i", gpu] if gpu else []
    command = [*chosen, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            ["nvidia-smi", *command],  # noqa: S607 - the driver's, wherever it is
            capture_output=True,
            text=True,
            timeout=seconds,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.split(", ") for line in done.stdout.splitlines()]
