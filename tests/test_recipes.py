"""Dockerfile and Apptainer.def: linted, and true to the locks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from giblet_hpc import __version__
from giblet_hpc.jobs.doctor import hardware

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
DEFINITION = (ROOT / "Apptainer.def").read_text()


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions and their arguments, lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.M).replace("\\\n", " ")
    pairs = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(name, " ".join(rest.split())) for name, rest in pairs]


def labels() -> dict[str, str]:
    defaults = dict(
        rest.split("=", 1) for name, rest in instructions() if name == "ARG" and "=" in rest
    )
    (text,) = [rest for name, rest in instructions() if name == "LABEL"]
    return {
        name: re.sub(r"\$\{(\w+)\}", lambda found: defaults[found[1]], value)
        for name, value in re.findall(r'(\S+)="([^"]*)"', text)
    }


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_base_is_pinned_by_digest() -> None:
    (base,) = [rest for name, rest in instructions() if rest.startswith("BASE_IMAGE=")]
    assert re.fullmatch(r"BASE_IMAGE=nvidia/cuda:[\w.-]+@sha256:[0-9a-f]{64}", base)


def test_nothing_is_baked_that_would_win_over_the_user() -> None:
    names = {name for name, _ in instructions()}
    assert not names & {"USER", "VOLUME", "CMD"}
    (variables,) = [rest for name, rest in instructions() if name == "ENV"]
    assert {part.split("=")[0] for part in variables.split() if "=" in part} == {
        "PATH", "PYTHONPATH", "PYTHONNOUSERSITE", "PYTHONSAFEPATH", "LANG",
    }  # fmt: skip
    assert "%environment" not in DEFINITION
    assert "%post" not in DEFINITION, "there is no second recipe"


def test_the_entrypoint_needs_no_shell() -> None:
    (entrypoint,) = [rest for name, rest in instructions() if name == "ENTRYPOINT"]
    assert json.loads(entrypoint) == ["/opt/giblet/bin/giblet-hpc"]


def test_labels_agree_with_the_locks() -> None:
    lock = (ROOT / "container" / "cuda.lock").read_text()
    pinned = dict(re.findall(r"^([a-z0-9-]+)==([\w.]+)", lock, flags=re.M))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (torch,) = [d for d in project["optional-dependencies"]["run"] if d.startswith("torch==")]
    assert torch == f"torch=={pinned['torch']}"
    assert torch in (ROOT / "container" / "cpu.lock").read_text().split()
    found = labels()
    assert found["hpc.giblet.torch"] == pinned["torch"]
    assert found["hpc.giblet.nccl"] == pinned["nvidia-nccl-cu13"]
    assert pinned["nvidia-cuda-runtime"].startswith(found["hpc.giblet.cuda"])
    assert found["hpc.giblet.minimum-driver"].startswith(hardware.MINIMUM_DRIVER)
    assert found["org.opencontainers.image.version"] == __version__
    assert "encodec" in pinned


def test_every_wheel_of_the_locks_has_a_hash() -> None:
    for name in ("cuda", "run", "light", "dev", "cpu", "torch", "audit"):
        lock = (ROOT / "container" / f"{name}.lock").read_text()
        pins = re.findall(r"^[a-z0-9-]+==.*\\\n    --hash=sha256:", lock, flags=re.M)
        assert len(pins) == len(re.findall(r"^[a-z0-9-]+(?:\[.*\])?==", lock, flags=re.M)), name
