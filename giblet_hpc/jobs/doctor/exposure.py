"""Who else can reach what a run reads, writes and listens on."""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from giblet_hpc.config.cluster import Cluster
from giblet_hpc.findings import Finding
from giblet_hpc.trust import is_mine, owner

CHECK = "who else"
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"


def examine(profile: Cluster, folders: Sequence[Path], *, nodes: int) -> list[Finding]:
    """Return who can change the folders of runs and stores, and what listens beyond this node.

    Parameters
    ----------
    profile : Cluster
    folders : sequence of Path
    nodes : int
        Nodes of a job.
    """
    return [*(of_folder(folder, profile.group) for folder in folders), listening(nodes)]


def of_folder(folder: Path, group: str | None) -> Finding:
    """Say who besides this user can change what is in a folder, or put other things there.

    Parameters
    ----------
    folder : Path
    group : str, optional
        Whom the profile shares runs and stores with.
    """
    if not folder.is_dir():
        return Finding(CHECK, "skipped", f"{folder} is not there yet")
    status = folder.stat()
    if not is_mine(folder.resolve()):
        return Finding(
            CHECK, "warn", f"{folder} belongs to {owner(folder.resolve())}, who can exchange "
            "what is in it", "use a folder of your own for runs, if you do not trust this user",
        )  # fmt: skip
    if (lists := _access_lists(folder)) and status.st_mode & stat.S_IWGRP:
        return Finding(
            CHECK, "warn", f"{folder} has an access list ({', '.join(lists)}) that lets more "
            "users write than its mode shows", f"`getfacl {folder}` shows whom",
        )  # fmt: skip
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        return Finding(CHECK, "warn", f"everybody can write to {folder}", f"chmod o-w {folder}")
    if status.st_mode & stat.S_IWGRP and _group(status.st_gid) != group:
        return Finding(
            CHECK, "warn", f"the group {_group(status.st_gid)} can write to {folder}, and the "
            "profile does not name it", f"chmod g-w {folder}, or `group:` in the profile",
        )  # fmt: skip
    who = f"you, and {group} by the profile" if status.st_mode & stat.S_IWGRP else "only you"
    return Finding(CHECK, "ok", f"{who} can write to {folder}")


def listening(nodes: int) -> Finding:
    """Say what of a training listens where others reach it."""
    if nodes == 1:
        return Finding(CHECK, "ok", "ranks of one node listen on its loopback interface alone")
    interface = os.environ.get("GLOO_SOCKET_IFNAME", "the network interface of the job")
    return Finding(
        CHECK, "ok", f"ranks of {nodes} nodes listen on {interface}: gloo and NCCL know no keys. "
        "Who reaches it while ranks connect could disturb a run or falsify numbers, not run code; "
        "a firewall that lets only nodes of the cluster in keeps others out (SECURITY.md)",
    )  # fmt: skip


def _access_lists(folder: Path) -> list[str]:
    try:
        names = os.listxattr(folder)
    except OSError:
        return []
    words = {ACCESS: "on it", DEFAULT: "on what is made in it"}
    return [words[name] for name in (ACCESS, DEFAULT) if name in names]


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
