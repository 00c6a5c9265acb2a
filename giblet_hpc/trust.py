"""What others may have put into folders that are shared with them: opened with care, or refused."""

from __future__ import annotations

import errno
import grp
import io
import os
import pwd
import stat
from pathlib import Path
from typing import IO

from giblet_hpc.errors import ConfigError, DataError, StorageError

ROOT = 0
PRIVATE_UMASK = 0o077
"""What runs make is for their user alone."""
GROUP_UMASK = 0o027
"""Unless their profile names a group, which may read then."""


def read_bytes(path: Path) -> bytes:
    """Return what is in a file; of a pipe or a device, which could keep a reader for ever, nothing.

    Raises
    ------
    FileNotFoundError
    DataError
        When it is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as handle:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DataError(f"{path} is no regular file")
        return handle.read()


def read_text(path: Path, *, errors: str = "strict") -> str:
    """Return the text of a file, as `read_bytes` reads it."""
    return io.StringIO(read_bytes(path).decode("utf-8", errors), newline=None).read()


def append(path: Path, mode: int = 0o666) -> IO[bytes]:
    """Open a file for writing at its end, and make it where there is none.

    Raises
    ------
    StorageError
        When the name is a link, a pipe or a device: it would lead to another file.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, mode)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
    else:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return os.fdopen(descriptor, "ab")
        os.close(descriptor)
    raise StorageError(
        f"{path}, which belongs to {owner(path)}, leads elsewhere: nothing is written to it",
        hint="remove it if you do not know it, and see who can write to its folder",
    )


def make_private_folder(path: Path) -> None:
    """Make a folder that only this user can enter, unless it is there.

    Its mode is set, not only asked for: a default access list of the folder around it would have
    more say than the umask.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        return
    path.chmod(0o700)


def owner(path: Path) -> str:
    """Return the name of the user whom a file, or a link, belongs to."""
    number = path.lstat().st_uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def own_folder(path: Path) -> Path:
    """Return where a folder's name leads, which is written to and may be shared.

    Raises
    ------
    ConfigError
        When the name is a link that another user has put there.
    """
    if path.is_symlink() and path.lstat().st_uid not in (os.geteuid(), ROOT):
        raise ConfigError(
            f"study.store: {path} is a link that belongs to {owner(path)}",
            hint=f"if it leads where you mean, name that folder: {path.resolve()}",
        )
    return path.resolve()


def is_mine(path: Path) -> bool:
    """Return whether a file, or a link, belongs to this user."""
    try:
        return path.lstat().st_uid == os.geteuid()
    except OSError:
        return False


def require_mine(path: Path, *, what: str) -> None:
    """Check that a folder that is to be worked in is this user's, where there is one.

    Raises
    ------
    ConfigError
        When it belongs to somebody else.
    """
    if path.exists() and not is_mine(path):
        raise ConfigError(
            f"{what} in {path} belongs to {owner(path)}: it is not worked on as you",
            hint="make one of your own with the same config: giblet-hpc submit pipeline --config "
            f"{path / 'run.yaml'} --name NAME --runs DIR",
        )


def require_safe(path: Path, *, what: str, of_others: bool = False, group: object = None) -> None:
    """Check that nobody else decides what is in a file from which commands are run.

    Parameters
    ----------
    path : Path
    what : str
        Of what kind it is, in words.
    of_others : bool
        Whether it may be a file of another user that only this other user can change.
    group : str, optional
        A group that may change it.

    Raises
    ------
    ConfigError
        When the file or its folder belongs to another user, or can be written by others.
    """
    for place in dict.fromkeys((path, path.resolve(), path.resolve().parent)):
        status = place.lstat()
        if status.st_uid not in (os.geteuid(), ROOT) and not of_others:
            raise ConfigError(
                f"{what} {path}: {place} belongs to {owner(place)}, and commands would be run "
                "from it as yours",
                hint="look at it, then make a copy of your own",
            )
        if others := _writers(status, group):
            raise ConfigError(
                f"{what} {path}: {others} can write to {place}, and commands would be run from it "
                "as yours",
                hint=f"chmod go-w {place}",
            )


def _writers(status: os.stat_result, group: object) -> str:
    """Return in words who else can change a file or put others into a folder."""
    if stat.S_ISLNK(status.st_mode) or (
        stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    ):
        return ""
    if status.st_mode & stat.S_IWOTH:
        return "everybody"
    if status.st_mode & stat.S_IWGRP:
        try:
            name = grp.getgrgid(status.st_gid).gr_name
        except KeyError:
            name = str(status.st_gid)
        # Many systems give each user a group of the same name, with nobody else in it.
        if status.st_gid != ROOT and name not in (_user_name(), group):
            return f"the group {name}"
    return ""


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""
