"""`giblet-hpc image`: build the container image, check it, look into it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

import click

from giblet_hpc.cli.common import cluster_option, json_option
from giblet_hpc.config.cluster import Cluster
from giblet_hpc.errors import ConfigError
from giblet_hpc.jobs import profiles
from giblet_hpc.jobs.node import image as images

BUILD = Path(__file__).parents[2] / "container" / "build.sh"
PASSED_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.group("image")
def image() -> None:
    """Build, check and enter the container image."""


class Verbatim(click.Command):
    """Hands on its arguments as they are, `--` too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take all arguments but a sole request for help."""
        if args in (["--help"], ["-h"]):
            return super().parse_args(ctx, args)
        ctx.params["arguments"] = tuple(args)
        return []


@image.command("build", cls=Verbatim)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def build_command(arguments: tuple[str, ...]) -> None:
    """Build the image by container/build.sh, with docker, podman or buildah.

    \b
    ARGUMENTS:
      --sif FILE       also make the SIF file for Apptainer
      --archive FILE   also write the image into an archive
                       (with each, FILE.cdx.json: all that is in it, as CycloneDX)
      --base IMAGE     another base than the pinned CUDA runtime
      --torch LOCK     container/cpu.lock: torch without CUDA
      --weights DIR    weights that the image carries (container/weights/README.md)
      --tag NAME       the image's name [default: giblet-hpc]
      --engine NAME    docker, podman or buildah [default: the first that is installed]
      -- ARGUMENT...   further arguments of the engine's own build command
    """
    if not BUILD.is_file():
        raise ConfigError(
            "the image is built from a clone of the repository, and this is an installed package",
            hint="clone the repository and run container/build.sh there",
        )
    raise SystemExit(subprocess.run([str(BUILD), *arguments], check=False).returncode)


def _of_cluster(choice: str | None) -> Cluster:
    profile = profiles.choose(choice)
    if not profile.image:
        raise ConfigError(
            f"cluster {profile.name} has no image", hint="set `image:` in its profile"
        )
    images.check(profile)
    return profile


def _inside(profile: Cluster, command: list[str], *, quiet: bool) -> tuple[int, str]:
    """Run a command in a profile's image; return its exit code, and its output when quiet."""
    with tempfile.TemporaryDirectory(prefix="giblet-") as local:
        entered, more = images.command(
            profile,
            command,
            folders=images.Folders([Path.cwd()]),
            local=Path(local),
            workdir=Path.cwd(),
            settings={},
        )
        done = subprocess.run(
            entered, env={**os.environ, **more}, check=False, text=True,
            stdout=subprocess.PIPE if quiet else None,
        )  # fmt: skip
    return done.returncode, done.stdout or ""


@image.command("check")
@cluster_option
@json_option
def check_command(cluster_choice: str | None, as_json: bool) -> None:
    """Run the image's own checks on this machine, and say what identifies it."""
    profile = _of_cluster(cluster_choice)
    with tempfile.TemporaryDirectory() as folder:
        digest = images.digest(profile, Path(folder) / "image.json")
    code, said = _inside(
        profile, [images.PYTHON, "-P", "-m", "giblet_hpc.stages.selfcheck"], quiet=True
    )
    if as_json:
        rows = [line.partition(":") for line in said.splitlines()]
        checks = [
            {"check": head.split()[-1], "ok": head.startswith("ok"), "seen": seen.strip()}
            for head, _, seen in rows
        ]
        facts = {"image": profile.image, "digest": digest, "ok": code == 0, "checks": checks}
        click.echo(json.dumps(facts, indent=1))
    else:
        click.echo(f"{profile.image}\n{digest}\n{said.rstrip()}")
    raise SystemExit(1 if code else 0)


@image.command("exec", context_settings=PASSED_ON)
@cluster_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_command(cluster_choice: str | None, command: tuple[str, ...]) -> None:
    """Run COMMAND in the image as jobs do: same folders, same variables, no HOME of yours."""
    code, _ = _inside(_of_cluster(cluster_choice), list(command), quiet=False)
    raise SystemExit(code)
