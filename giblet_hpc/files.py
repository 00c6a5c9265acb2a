"""Writing files so that a crash at any moment leaves the old file or the new one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from giblet_hpc.errors import DataError, GibletError, StorageError
from giblet_hpc.trust import read_text

TEMPORARY_MARK = ".tmp-"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
NOT_SUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; at the end fsync it and rename it into place.

    Parameters
    ----------
    path : Path
        The final name. Its folder is made when absent.

    Yields
    ------
    Path
        A name in the same folder with the same suffixes, to be written by the caller.

    Raises
    ------
    OSError
        When writing fails; ``path`` is then as it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_MARK}{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
        fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_with(path: Path, writer: Callable[[BinaryIO], object]) -> None:
    """Write ``path`` atomically by calling ``writer`` with an open binary file."""
    with atomic_path(path) as temporary, temporary.open("xb") as handle:
        writer(handle)
        handle.flush()


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, in UTF-8."""
    write_with(path, lambda handle: handle.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` to ``path`` atomically, as indented JSON."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def write_private_json(path: Path, value: Any) -> None:
    """Write ``value`` to ``path`` atomically, as JSON that no other user can read."""
    with atomic_path(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as handle:
            json.dump(value, handle)


def create_text(path: Path, text: str) -> bool:
    """Create ``path`` with ``text`` unless it exists; return whether this process created it.

    By linking a finished file to the name, which only one process can do, on local and on network
    file systems alike. Where there are no hard links, by exclusive creation: a reader may then see
    the file before its text.
    """
    temporary = path.with_name(f"{TEMPORARY_MARK}{uuid.uuid4().hex[:8]}-{path.name}")
    with temporary.open("x") as handle:
        handle.write(text)
    try:
        return link_or_copy(temporary, path)
    finally:
        temporary.unlink()


def link_or_copy(source: Path, path: Path) -> bool:
    """Give a file a second name, or a copy where there are no hard links; False when it exists."""
    try:
        os.link(source, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (*NOT_SUPPORTED, errno.EPERM, errno.EMLINK, errno.EXDEV):
            raise
        try:
            with path.open("x") as handle:
                handle.write(source.read_text())
                handle.flush()
                os.fsync(handle.fileno())
        except FileExistsError:
            return False
    return True


def explain(error: BaseException) -> GibletError | None:
    """Return what a file system or a limit of the machine has refused, as an error of ours.

    None for errors that are something else.
    """
    if isinstance(error, MemoryError) or "can't start new thread" in str(error):
        return StorageError(
            f"a limit of this machine was reached: {error or 'no memory left'}",
            hint="`ulimit -v` and `ulimit -u` show the limits on memory and processes; login nodes "
            "often have low ones: submit a job, or run on a compute node",
        )
    if not isinstance(error, OSError):
        return None
    name = error.filename or error.strerror or error
    if error.errno in FULL:
        return StorageError(
            f"the disk is full or the quota is used up: {name}",
            hint="free some space and give the same command again; finished work is kept",
        )
    if error.errno in REFUSED and error.filename:
        return StorageError(
            f"{name} is not yours to write: {error.strerror}",
            hint="give a folder of your own, or ask its owner for write access",
        )
    return None


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    DataError
        When it is missing or not JSON.
    """
    try:
        return json.loads(read_text(path))
    except FileNotFoundError:
        raise DataError(f"file not found: {path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid JSON: {error}") from None


def fsync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable, where the file system can do that for a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
    finally:
        os.close(descriptor)


def sha256_file(path: Path) -> str:
    """Return the hex sha256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Return the hex sha256 of a JSON-able value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def reading(path: Path, what: str, *, hint: str = "") -> Iterator[None]:
    """Turn whatever a library raises while it reads a file into an error that names the file.

    Errors of ours, and those of the machine rather than of the file, pass.

    Parameters
    ----------
    path : Path
    what : str
        What the file is read as.
    hint : str
        What to do.

    Raises
    ------
    DataError
    """
    try:
        yield
    except (GibletError, MemoryError):
        raise
    # Libraries raise whatever they meet in a damaged file: KeyError, struct.error, zlib.error.
    except Exception as error:
        if not isinstance(error, OSError) and (machine := explain(error)) is not None:
            raise machine from error
        said = str(error).strip() or type(error).__name__
        raise DataError(f"{path} cannot be read as {what}: {said}", hint=hint) from error


def require_file(path: Path, *, what: str, hint: str = "") -> Path:
    """Return ``path`` when it is a readable file.

    Raises
    ------
    DataError
        When there is no such file.
    """
    if not path.is_file():
        raise DataError(f"{what} not found: {path}", hint=hint or "check the path in the config")
    return path
