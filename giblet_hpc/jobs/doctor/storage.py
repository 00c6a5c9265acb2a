"""The file systems that runs and stores are on: do they behave, is there room?"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import os
import subprocess
import time
import uuid
from pathlib import Path

from giblet_hpc.files import TEMPORARY_MARK, fsync_folder
from giblet_hpc.findings import Finding

FREE_GIB = 20.0
FREE_FILES = 10_000
SLOW_SECONDS = 5.0
SKEW_SECONDS = 5.0
ASK_SECONDS = 20.0
GIB = 2**30


def file_system(folder: Path) -> Finding:
    """Write, sync, rename and lock as runs and stores do; compare the clocks; look for room."""
    name = folder / f"{TEMPORARY_MARK}doctor-{uuid.uuid4().hex[:8]}"
    begin = time.monotonic()
    try:
        with name.open("wb") as handle:
            handle.write(b"giblet-hpc")
            handle.flush()
            os.fsync(handle.fileno())
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        renamed = name.with_suffix(".renamed")
        name.rename(renamed)
        fsync_folder(folder)
        links = _has_hard_links(renamed)
        skew = renamed.stat().st_mtime - time.time()
        renamed.unlink()
    except OSError as error:
        return Finding(
            "file system",
            "fail",
            f"{folder}: {error.strerror}",
            "runs and stores need a file system with write access, rename and flock",
        )
    finally:
        with contextlib.suppress(OSError):
            name.unlink(missing_ok=True)
    return _judge_folder(folder, seconds=time.monotonic() - begin, skew=skew, links=links)


def _has_hard_links(file: Path) -> bool:
    """Whether a file can have a second name."""
    second = file.with_suffix(".linked")
    try:
        os.link(file, second)
    except OSError:
        return False
    second.unlink()
    return True


def _judge_folder(folder: Path, *, seconds: float, skew: float, links: bool = True) -> Finding:
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize / GIB
    seen = f"{folder}: {free:.0f} GiB free, a file is written and synced in {seconds:.2f} s"
    seen += "" if links else ", no hard links: runs do without"
    if abs(skew) > SKEW_SECONDS + seconds:
        return Finding(
            "file system",
            "warn",
            f"{seen}; its clock is {skew:+.0f} s off",
            "ask the admin about time synchronisation: heartbeats are judged by it",
        )
    if free < FREE_GIB:
        return Finding("file system", "warn", seen, "make room, or use another file system")
    if seconds > SLOW_SECONDS:
        return Finding("file system", "warn", seen, "runs belong on a faster file system")
    return Finding("file system", "ok", seen)


def quota(folder: Path) -> Finding:
    """Compare what the user may still write with what a run needs."""
    user = getpass.getuser()
    # Lustre has a command of its own; both print name, blocks, quota, limit, grace, files, ...
    for command in (
        ["lfs", "quota", "-q", "-u", user, str(folder)],
        ["quota", "--no-wrap", "--raw-grace", "--filesystem", str(mount_point(folder))],
    ):
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=ASK_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if numbers := _quota_numbers(done.stdout):
            return _judge_quota(folder, numbers)
    return Finding("quota", "skipped", f"{folder}: no quota that a command here knows of")


def striping(folder: Path) -> Finding:
    """Look over how many servers Lustre spreads large files, such as those of checkpoints."""
    try:
        done = subprocess.run(
            ["lfs", "getstripe", "-c", "-d", str(folder)],  # noqa: S607 - the site's, wherever it is
            capture_output=True, text=True, timeout=ASK_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        done = None
    count = done.stdout.strip() if done is not None and not done.returncode else ""
    if not count.removeprefix("-").isdigit():
        return Finding("striping", "skipped", f"{folder}: not on Lustre, or it does not say")
    if count in ("0", "1"):
        return Finding(
            "striping",
            "warn",
            f"{folder}: each file is on one of Lustre's servers",
            f"checkpoints of many gigabytes are faster on several: lfs setstripe -c 8 {folder}",
        )
    servers = "all" if count == "-1" else count
    return Finding("striping", "ok", f"{folder}: files are spread over {servers} servers")


def mount_point(folder: Path) -> Path:
    """Return where the file system of a folder is mounted."""
    return next(path for path in (folder, *folder.parents) if path.is_mount())


def _quota_numbers(text: str) -> list[int]:
    """Return KiB used, its two limits, files used, their two limits; empty where text has none.

    A long name stands on a line of its own; stars mark what is over a limit, brackets what Lustre
    does not know exactly.
    """
    for line in text.splitlines():
        fields = [field.strip("[]*") for field in line.split()]
        fields = fields[1:] if len(fields) == 9 else fields
        chosen = [*fields[:3], *fields[4:7]]
        if len(fields) == 8 and all(field.isdigit() for field in chosen):
            return [int(field) for field in chosen]
    return []


def _judge_quota(folder: Path, numbers: list[int]) -> Finding:
    """Judge what quota says: the first limit of each kind that is not 0 counts."""
    used, soft, hard, files, file_soft, file_hard = numbers
    block_limit, file_limit = soft or hard, file_soft or file_hard
    room = max(0, block_limit - used) * 1024 / GIB
    seen, low = [], False
    if block_limit:
        seen.append(f"{room:.0f} GiB")
        low = low or room < FREE_GIB
    if file_limit:
        seen.append(f"{file_limit - files} files")
        low = low or file_limit - files < FREE_FILES
    text = f"{folder}: your quota leaves {' and '.join(seen)}" if seen else f"{folder}: no limit"
    if low:
        return Finding("quota", "warn", text, "make room, ask for more, or use another folder")
    return Finding("quota", "ok", text)
