"""The run that a command is about: found first, made only when nothing speaks against it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from giblet_hpc.cli.common import restrict_umask
from giblet_hpc.config import io as config_io
from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import ConfigError, JobError
from giblet_hpc.jobs.inspect import status
from giblet_hpc.jobs.submit import forks
from giblet_hpc.runs.paths import RunPaths, Stage
from giblet_hpc.trust import require_mine


@dataclass(frozen=True)
class Target:
    """A run, before anything is made.

    Parameters
    ----------
    paths : RunPaths
    config : RunConfig, optional
        Of a run that is to be made; None for one that exists and stays as it is.
    base : RunPaths, optional
        The run that it is a fork of.
    aside : bool
        Whether a run of that name is moved aside first.
    rescored : bool
        Whether the run exists, and the config changes only how it is scored.
    """

    paths: RunPaths
    config: RunConfig | None = None
    base: RunPaths | None = None
    aside: bool = False
    rescored: bool = False

    def make(self) -> RunPaths:
        """Make what has to be made; return the run."""
        restrict_umask()
        require_mine(self.paths.root, what=f"run {self.paths.name}")
        if self.aside and (went := forks.replace(self.paths)):
            click.echo(f"the earlier run {self.paths.name} is now {went}", err=True)
        if self.config is not None and self.rescored:
            forks.rescore(self.paths, self.config)
            return self.paths
        if self.config is not None and self.base is not None:
            return forks.fork(self.base, self.paths.name, self.config)
        if self.config is not None:
            self.paths.create(self.config)
        return self.paths


def find(
    runs: Path, file: Path | None, name: str | None, overrides: Sequence[str], *, first: Stage
) -> Target:
    """Return the run of a name or a config, to be worked on from stage ``first``.

    Raises
    ------
    ConfigError
        When there is no such run, or it has finished something with another config.
    JobError
        When the run is new, and ``first`` needs what it has not made yet.
    """
    if file is None:
        paths = RunPaths(status.choose_run(runs, name).root.resolve())
        if not overrides:
            return Target(paths)
        config = forks.changed(paths, overrides)
        if first == "evaluate" and forks.is_rescored(paths, config):
            return Target(paths, config, rescored=True)
        raise ConfigError(
            "--set without --config would change a run's config",
            hint="--fork NEW makes a new run with the changed settings; `submit evaluate` takes "
            "those of `evaluate` for a run that is trained",
        )
    paths, config = _named(runs, file, name), config_io.load(file, overrides)
    if not paths.config.is_file():
        if first != "preprocess":
            raise JobError(
                f"there is no run {paths.name} yet whose preprocess is complete",
                hint=f"giblet-hpc submit pipeline --config {file}",
            )
        return Target(paths, config)
    if first == "preprocess" and forks.is_replaceable(paths, config):
        return Target(paths, config, aside=True)
    if forks.is_rescored(paths, config):
        return Target(paths, config, rescored=True)
    paths.require_same(config)
    return Target(paths)


def find_forced(
    runs: Path, file: Path | None, name: str | None, overrides: Sequence[str], *, first: Stage
) -> Target:
    """Return the run that is begun anew from a config, whatever there is of that name.

    Raises
    ------
    ConfigError
        Without a config, or when the stage needs what only the old run has.
    """
    if file is None:
        raise ConfigError("--force needs --config: what should the new run be like?")
    if first != "preprocess":
        raise ConfigError(
            f"--force starts anew, and {first} needs what comes before it",
            hint="giblet-hpc submit pipeline --force ...",
        )
    config = config_io.load(file, overrides)
    return Target(_named(runs, file, name), config, aside=True)


def find_fork(runs: Path, name: str | None, new: str, overrides: Sequence[str]) -> Target:
    """Return the run that differs from another by some settings."""
    base = RunPaths(status.choose_run(runs, name).root.resolve())
    return Target(RunPaths(base.root.parent / new), forks.changed(base, overrides), base)


def _named(runs: Path, file: Path, name: str | None) -> RunPaths:
    return RunPaths((runs / check_name(name or file.stem)).resolve())


def check_name(name: str) -> str:
    """Return a run's name, which is a folder's name.

    Raises
    ------
    ConfigError
        When no folder can have it.
    """
    if not re.fullmatch(r"[^/\s.-][^/\n]*", name):
        raise ConfigError(f"{name!r} cannot be a run's name: it is a folder's")
    return name
