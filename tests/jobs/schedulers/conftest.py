from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

SAY = """\
#!/bin/sh
echo "$(basename "$0") $*" >>{folder}/asked
[ -f {folder}/{name}.err ] && cat {folder}/{name}.err >&2
[ -f {folder}/{name}.rc ] && exit "$(cat {folder}/{name}.rc)"
cat {folder}/{name}.out 2>/dev/null
exit 0
"""
COMMANDS = ("squeue", "scontrol", "sacct", "sinfo", "scancel", "srun", "sbatch")
Answers = Callable[..., None]


@pytest.fixture
def slurm_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Commands of Slurm's that give recorded answers; what was asked is in `asked`."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name in COMMANDS:
        program = folder / name
        program.write_text(SAY.format(folder=folder, name=name))
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def say(name: str, out: str = "", *, err: str = "", rc: int = 0) -> None:
        (folder / f"{name}.out").write_text(out)
        for ending, text in (("err", err), ("rc", str(rc) if rc else "")):
            file = folder / f"{name}.{ending}"
            file.write_text(text) if text else file.unlink(missing_ok=True)

    return say


@pytest.fixture
def asked(tmp_path: Path) -> Callable[[], list[str]]:
    """What the commands were asked."""
    file = tmp_path / "slurm" / "asked"
    return lambda: file.read_text().splitlines() if file.exists() else []
