"""Folders that a lab shares: its group reads run folders, and writes to stores.

Others may write where this works. So nothing is reached by name twice: what a name leads to is
opened, without following links, and what is open is looked at and given.
"""

from __future__ import annotations

import grp
import os
import stat
from pathlib import Path

from giblet_hpc.errors import ConfigError
from giblet_hpc.runs.attempt_paths import RENDEZVOUS
from giblet_hpc.trust import own_folder

RUN_MODE = 0o2750
STORE_MODE = 0o2770
FILE_MODE = 0o640
RECORDS = ".giblet"
"""What every store has in it."""
OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def share(run: Path, store: Path | None, group: str) -> None:
    """Give a run's folder and its store to a group; what is made in them later inherits it.

    Only what belongs to this user, and was made for the run, is given: links are not followed,
    files of two names and the ranks' key are left as they are.

    Parameters
    ----------
    run : Path
        Is readable for the group from now on.
    store : Path, optional
        Is writable for the group; made when absent.
    group : str
        Name of the Unix group.

    Raises
    ------
    ConfigError
        When there is no such group, or the user is not one of it; when the store's name is a link
        of another user's, or the folder holds what is no store.
    """
    try:
        number = grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(f"group: no Unix group {group} on this machine") from None
    if store is not None:
        _give_store(store, number, group)
    for _, _, files, descriptor in os.fwalk(run, follow_symlinks=False):
        _give(".", number, RUN_MODE, group=group, inside=descriptor)
        for name in files:
            if name != RENDEZVOUS:
                _give(name, number, FILE_MODE, group=group, inside=descriptor)


def _give_store(store: Path, number: int, group: str) -> None:
    target = own_folder(store)
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()) and not (target / RECORDS).is_dir():
        raise ConfigError(
            f"study.store: {target} holds other things than a store: it is not given to {group}",
            hint="name a folder for the store alone",
        )
    _give(str(target), number, STORE_MODE, group=group)


def _give(name: str, number: int, mode: int, *, group: str, inside: int | None = None) -> None:
    """Give a file or a folder to a group, when it is this user's and nobody else's name for it."""
    try:
        descriptor = os.open(name, OPEN, dir_fd=inside)
    except OSError:
        # A link, or gone, or unreadable: nothing that this run has made.
        return
    try:
        status = os.fstat(descriptor)
        folder = stat.S_ISDIR(status.st_mode)
        plain = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
        if status.st_uid != os.geteuid() or not (folder or plain):
            return
        os.fchown(descriptor, -1, number)
        os.fchmod(descriptor, mode)
    except PermissionError:
        raise ConfigError(
            f"group: you are not a member of {group}", hint="`groups` lists yours"
        ) from None
    finally:
        os.close(descriptor)
