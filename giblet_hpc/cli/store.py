"""Commands on feature stores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from giblet_hpc.cli.common import json_option
from giblet_hpc.errors import ConfigError, JobError
from giblet_hpc.garbage import collect_garbage
from giblet_hpc.printable import printable


@click.group()
def store() -> None:
    """Look at, verify and tidy a feature store."""


def _store(path: Path) -> Any:
    from giblet_hpc.store import FeatureStore

    if not (path / "zarr.json").is_file():
        raise ConfigError(f"{path} is not a feature store", hint="name the .zarr folder")
    return FeatureStore(path)


store_argument = click.argument("path", type=click.Path(path_type=Path))


@store.command("info")
@store_argument
@json_option
def store_info(path: Path, as_json: bool) -> None:
    """List a store's arrays, how much of each is committed, and why one was made again."""
    rows = _store(path).summary()
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        shape = " x ".join(map(str, row["shape"]))
        done = f"{row['committed']}/{row['shards']} shards"
        click.echo(f"{row['array']:<34}{shape:<26}{row['dtype']:<9}{row['bytes']:>13,}  {done}")
        for line in row["because"]:
            click.echo(printable(f"    made again: {line}"))


@store.command("verify")
@store_argument
@json_option
def store_verify(path: Path, as_json: bool) -> None:
    """Check every shard against its commit record; exit 1 when one is not good."""
    problems = _store(path).verify()
    click.echo(json.dumps(problems) if as_json else "\n".join(problems) or "all shards are good")
    if problems:
        raise JobError(
            f"{len(problems)} shards are missing or damaged",
            hint="`giblet-hpc run preprocess NAME` writes them again",
        )


@store.command("gc")
@store_argument
@click.option(
    "--older-than", default=48.0, show_default=True, help="Hours; younger files may be in use."
)
def store_gc(path: Path, older_than: float) -> None:
    """Remove temporary files that killed writers left."""
    for removed in collect_garbage(_store(path).path, older_than=older_than * 3600):
        click.echo(removed)
