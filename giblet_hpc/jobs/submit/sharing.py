"""Folders that a lab shares: its group reads run folders, and writes to stores."""

from __future__ import annotations

import grp
import os
from pathlib import Path

from giblet_hpc.errors import ConfigError

RUN_MODE = 0o2750
STORE_MODE = 0o2770
PRIVATE_UMASK = 0o027


def share(run: Path, store: Path | None, group: str) -> None:
    """Give a run's folder and its store to a group; what is made in them later inherits it.

    Folders that belong to another user are left as they are.

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
        When there is no such group, or the user is not one of it.
    """
    try:
        number = grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(f"group: no Unix group {group} on this machine") from None
    if store is not None:
        store.mkdir(parents=True, exist_ok=True)
        _give(store, number, STORE_MODE, group)
    _give(run, number, RUN_MODE, group)
    for path in run.rglob("*"):
        _give(path, number, RUN_MODE if path.is_dir() else 0o640, group)


def _give(path: Path, number: int, mode: int, group: str) -> None:
    if path.stat().st_uid != os.geteuid():
        return
    try:
        os.chown(path, -1, number)
    except PermissionError:
        raise ConfigError(
            f"group: you are not a member of {group}", hint="`groups` lists yours"
        ) from None
    path.chmod(mode)
