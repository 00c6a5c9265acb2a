"""Building the image as a site without a registry and without network would, once a session."""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import leave_out

ROOT = Path(__file__).parents[2]
PROGRAMS = (
    "buildah", "mmdebstrap", "apptainer", "mksquashfs", "newuidmap", "podman", "runc", "docker",
    "dockerd",
)  # fmt: skip
BASE = "localhost/giblet-base"
TAG = "localhost/giblet-tests"
BUILDER = "giblet-builder"
FUSE = Path("/dev/fuse")
found_modes: list[int] = []
SITE = "/opt/giblet/lib/python3.11/site-packages"


@dataclass(frozen=True)
class Built:
    """What was built, and how long it took."""

    folder: Path
    sif: Path
    seconds: dict[str, float]


def need_tools() -> None:
    """Skip, or fail where that is required, on a machine without the tools."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        reason = f"needs {', '.join(missing)}" if missing else "building a base needs root"
        leave_out("container", f"{reason}; container/testbed/install.sh installs what is missing")


def open_devices() -> None:
    """Let ordinary users mount by FUSE, as they may on nodes of clusters, until `remove`."""
    if FUSE.exists() and not found_modes:
        found_modes.append(FUSE.stat().st_mode)
        FUSE.chmod(0o666)


@functools.cache
def build() -> Built:
    """Build base, image and SIF; the SIF as an ordinary user."""
    need_tools()
    open_devices()
    folder = Path(f"/tmp/giblet-image-{os.getpid()}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    subprocess.run(["useradd", "--create-home", BUILDER], check=False, capture_output=True)
    use_storage(folder)
    seconds = {}
    begin = time.monotonic()
    run("container/testbed/base.sh", BASE)
    seconds["base"] = time.monotonic() - begin
    fill_wheelhouse(folder / "wheels")
    begin = time.monotonic()
    archive = folder / "image.tar"
    build_image(ROOT, folder / "wheels", "--archive", str(archive))
    archive.chmod(0o644)
    seconds["image"] = time.monotonic() - begin
    begin = time.monotonic()
    mine = folder / "sif"
    mine.mkdir()
    shutil.chown(mine, BUILDER, BUILDER)
    shutil.copy(ROOT / "Apptainer.def", mine)
    sif = mine / "giblet-hpc.sif"
    # Packed fast rather than small: this file lives for minutes.
    as_builder(
        "apptainer", "--quiet", "build", "--mksquashfs-args", "-Xcompression-level 1",
        "--build-arg", f"from={archive}", str(sif), "Apptainer.def", folder=mine,
    )  # fmt: skip
    sif.chmod(0o755)
    seconds["sif"] = time.monotonic() - begin
    archive.unlink()
    return Built(folder, sif, seconds)


def remove() -> None:
    """Remove what was built, if anything was, and leave devices as they were found."""
    if found_modes:
        FUSE.chmod(found_modes.pop())
    if build.cache_info().currsize:
        folder = build().folder
        subprocess.run(["buildah", "rmi", "--all", "--force"], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)
        del os.environ["CONTAINERS_STORAGE_CONF"]
        subprocess.run(["userdel", "--remove", BUILDER], check=False, capture_output=True)
        build.cache_clear()


def use_storage(folder: Path) -> None:
    """Have buildah and podman keep all images in a folder of ours, which ends with the tests."""
    file = folder / "storage.conf"
    file.write_text(
        '[storage]\ndriver = "overlay"\n'
        f'graphroot = "{folder}/storage"\nrunroot = "{folder}/storage-run"\n'
    )
    os.environ["CONTAINERS_STORAGE_CONF"] = str(file)


def fill_wheelhouse(folder: Path) -> None:
    """Download what the lock names, checked by its hashes, and torch for CPUs."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    run(*pip, "--require-hashes", "-r", "container/run.lock")
    run(*pip, "--require-hashes", "-r", "container/cpu.lock")


def build_image(source: Path, wheels: Path, *more: str, engine: Sequence[str] = ()) -> None:
    """Build the image from a source tree on the base without CUDA, with no registry.

    ``more`` goes to build.sh, ``engine`` to the engine itself.
    """
    run(
        str(source / "container" / "build.sh"), "--engine", "buildah", "--base", BASE,
        "--torch", "container/cpu.lock", "--tag", TAG, *more, "--", "--pull-never",
        "--volume", f"{wheels}:/wheelhouse:ro",
        "--build-arg", "PIP_OPTIONS=--no-index --find-links=/wheelhouse", *engine,
    )  # fmt: skip


def run(*command: str) -> str:
    """Run a command in the repository; its output is shown when it fails."""
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "BUILDAH_ISOLATION": "chroot"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def as_builder(
    *command: str, folder: Path, check: bool = True, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command as an ordinary user, in a folder of its own."""
    account = pwd.getpwnam(BUILDER)
    become: Sequence[str] = [
        "setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups",
    ]  # fmt: skip
    environment = {
        "PATH": os.environ["PATH"], "HOME": account.pw_dir, "USER": BUILDER,
        "APPTAINER_CACHEDIR": str(folder / "cache"), "APPTAINER_TMPDIR": str(folder),
    }  # fmt: skip
    done = subprocess.run(
        [*become, *command], cwd=folder, env=environment | variables, capture_output=True, text=True
    )
    if check:
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done
