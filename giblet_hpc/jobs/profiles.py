"""Cluster profiles: where jobs run, and what the place needs to know."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from giblet_hpc.config import io
from giblet_hpc.config.cluster import LOCAL, Cluster
from giblet_hpc.errors import ConfigError
from giblet_hpc.files import write_text
from giblet_hpc.jobs.schedulers import registry
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.trust import require_safe


def local_cluster() -> Cluster:
    """Return the profile of this machine."""
    return Cluster(name=LOCAL, scheduler="local", requeue="none", cpus_per_node=os.cpu_count() or 1)


def profile_folders() -> list[Path]:
    """Return the folders that profiles are looked for in, the user's first."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return [home / "giblet-hpc" / "clusters", Path("slurm") / "clusters"]


def known_profiles() -> dict[str, Path]:
    """Return the profiles that can be chosen by name."""
    found: dict[str, Path] = {}
    for folder in profile_folders():
        for file in sorted(folder.glob("*.yaml")):
            found.setdefault(file.stem, file)
    return found


def load(file: Path, *, of_others: bool = False) -> Cluster:
    """Read a profile.

    Parameters
    ----------
    file : Path
    of_others : bool
        Whether it may be another user's, or one that the group which it shares runs with can
        write to: its `setup` and `environment` are carried out.

    Raises
    ------
    ConfigError
        When it cannot be read, a field is wrong, or others decide what is in it.
    """
    if not file.is_file():
        raise ConfigError(
            f"no cluster profile {file}",
            hint="`giblet-hpc cluster detect` writes one; slurm/clusters/ has examples",
        )
    tree = io.read_tree(file)
    group = tree.get("group") if of_others else None
    require_safe(file, what="cluster profile", of_others=of_others, group=group)
    image = tree.get("image")
    if isinstance(image, str) and tree.get("runtime", "apptainer") == "apptainer":
        tree["image"] = str(file.resolve().parent / Path(image).expanduser())
    if isinstance(tree.get("image_key"), str):
        tree["image_key"] = str(file.resolve().parent / Path(tree["image_key"]).expanduser())
    return io.validate_section(
        {"name": file.stem, **tree},
        Cluster,
        source=str(file),
        hint="`giblet-hpc cluster schema` lists all fields",
    )


def save(cluster: Cluster, file: Path) -> None:
    """Write a profile, atomically."""
    write_text(file, yaml.safe_dump(io.plain(cluster), sort_keys=False, width=96))


def of_run(paths: RunPaths) -> Cluster:
    """Return the profile that a run was submitted with; this machine's before that."""
    return load(paths.cluster) if paths.cluster.is_file() else local_cluster()


def choose(name: str | None = None) -> Cluster:
    """Return the profile to use.

    Parameters
    ----------
    name : str, optional
        A profile's name, or a file. By default $GIBLET_CLUSTER; else the user's only profile;
        else this machine, where it has no scheduler.

    Raises
    ------
    ConfigError
        When there is no such profile, or none can be chosen.
    """
    name = name or os.environ.get("GIBLET_CLUSTER")
    profiles = known_profiles()
    if name == LOCAL:
        return local_cluster()
    if name and name in profiles:
        return load(profiles[name])
    if name and ("/" in name or name.endswith((".yaml", ".yml")) or Path(name).is_file()):
        # Who gives a path has looked at it.
        return load(Path(name), of_others=True)
    if name:
        raise ConfigError(
            f"no cluster profile {name}; there are: {', '.join([LOCAL, *profiles])}",
            hint=f"giblet-hpc cluster detect --name {name}",
        )
    scheduler = registry.installed()
    if scheduler is None:
        return local_cluster()
    own = {n: file for n, file in profiles.items() if file.parent == profile_folders()[0]}
    if len(own) == 1:
        return load(next(iter(own.values())))
    if not own:
        raise ConfigError(
            f"this machine has {scheduler.title}, and there is no profile of the cluster yet",
            hint="`giblet-hpc cluster detect` writes one; `--cluster local` runs on this machine",
        )
    raise ConfigError(
        f"which cluster? there are: {', '.join([LOCAL, *own])}",
        hint="name one with --cluster, or in $GIBLET_CLUSTER",
    )
