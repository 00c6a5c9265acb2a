"""Runs made from runs: forks with changed settings, sweeps, repetitions, replacements."""

from __future__ import annotations

import itertools
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from giblet_hpc.config import io as config_io
from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import ConfigError
from giblet_hpc.files import read_json
from giblet_hpc.jobs.record import lease, provenance
from giblet_hpc.runs import checkpoints
from giblet_hpc.runs.paths import STAGES, RunPaths


def changed(base: RunPaths, overrides: Sequence[str]) -> RunConfig:
    """Return a run's config with some fields set anew.

    Raises
    ------
    ConfigError
        When a field is unknown or its value is not allowed.
    """
    return config_io.load(base.config, overrides)


def fork(base: RunPaths, name: str, config: RunConfig) -> RunPaths:
    """Make a run with another config, which shares what preprocess has made where it applies.

    Parameters
    ----------
    base : RunPaths
    name : str
        Name of the new run, in the same folder. One that exists must have this config.
    config : RunConfig

    Raises
    ------
    ConfigError
        When a run of that name exists with another config.
    """
    new = RunPaths(base.root.parent / name)
    known = new.config.is_file()
    new.create(config)
    if not known and shares_preprocess(base, config):
        for source, target in ((base.split, new.split), (base.inputs, new.inputs)):
            shutil.copy2(source, target)
        said = base.methods("preprocess")
        if said.is_file():
            new.methods("preprocess").parent.mkdir(exist_ok=True)
            shutil.copy2(said, new.methods("preprocess"))
        new.update_state("preprocess", status="complete", shared_with=base.name)
    return new


def shares_preprocess(base: RunPaths, config: RunConfig) -> bool:
    """Return whether what preprocess has made for a run serves another config too."""
    complete = base.stage_state("preprocess").get("status") == "complete"
    return complete and not preprocess_differences(base.load_config(), config)


def preprocess_differences(old: RunConfig, new: RunConfig) -> list[str]:
    """Return the fields, among those that preprocess reads, in which two configs differ."""
    return config_io.differences(config_io.preprocess_view(old), config_io.preprocess_view(new))


def replace(paths: RunPaths) -> Path | None:
    """Move a run's folder aside, so that its name is free; return where it went.

    Raises
    ------
    ConfigError
        When the run is queued or running.
    """
    if not paths.config.is_file():
        return None
    held = lease.holder(paths)
    if held is not None:
        raise ConfigError(f"run {paths.name} is in use: {held}", hint=paths.command("cancel"))
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = paths.replaced
    names = itertools.chain([stamp], (f"{stamp}-{number}" for number in itertools.count(2)))
    aside = next(
        path for path in (folder / f"{paths.name}-{name}" for name in names) if not path.exists()
    )
    folder.mkdir(exist_ok=True)
    paths.root.rename(aside)
    return aside


def is_replaceable(paths: RunPaths, config: RunConfig) -> bool:
    """Return whether a run has finished nothing, and nobody works on it, under another config."""
    if not paths.config.is_file() or lease.holder(paths) is not None:
        return False
    if any(paths.stage_state(stage).get("status") == "complete" for stage in STAGES):
        return False
    before = config_io.plain(paths.load_config())
    return bool(config_io.differences(before, config_io.plain(config)))


def is_rescored(paths: RunPaths, config: RunConfig) -> bool:
    """Return whether a config differs from a run's in nothing but how it is scored.

    Of a run that is trained, or not yet: while it trains its config stays as it is.
    """
    if paths.stage_state("train").get("status", "not started") not in ("complete", "not started"):
        return False
    before = config_io.plain(paths.load_config())
    changed_fields = config_io.differences(before, config_io.plain(config))
    return bool(changed_fields) and all(one.startswith("evaluate.") for one in changed_fields)


def rescore(paths: RunPaths, config: RunConfig) -> None:
    """Give a run other settings of its evaluation, which is then to be made again.

    Raises
    ------
    ConfigError
        When the run is queued or running.
    """
    held = lease.holder(paths)
    if held is not None:
        raise ConfigError(f"run {paths.name} is in use: {held}", hint=paths.command("cancel"))
    config_io.save(config, paths.config)
    paths.skip_training(not config.evaluate.network)
    paths.update_state("evaluate", status="not started", reason="", hint="")


def sweep(base: RunPaths, overrides: Sequence[str], axes: Sequence[str]) -> list[RunPaths]:
    """Make a run for each combination of values.

    Parameters
    ----------
    base : RunPaths
        The run whose config and preprocess all share.
    overrides : sequence of str
        Fields set for all, as ``field=value``.
    axes : sequence of str
        ``field=value,value,...``.

    Raises
    ------
    ConfigError
        When an axis is not of that form, or a field belongs to preprocess.
    """
    parsed = [axis(text, option="--sweep") for text in axes]
    planned = []
    for values in itertools.product(*(values for _, values in parsed)):
        settings = [f"{field}={value}" for (field, _), value in zip(parsed, values, strict=True)]
        config = changed(base, [*overrides, *settings])
        if differing := preprocess_differences(base.load_config(), config):
            raise ConfigError(
                f"a sweep cannot change what preprocess made: {differing[0]}",
                hint="give each of these a config of its own",
            )
        labels = [f"{s.partition('=')[0].rpartition('.')[2]}-{s.partition('=')[2]}"
                  for s in settings]  # fmt: skip
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", "-".join([base.name, *labels])).strip("-")
        planned.append((name, config))
    # Every combination is good: only now is anything made.
    return [fork(base, name, config) for name, config in planned]


def axis(text: str, *, option: str) -> tuple[str, list[str]]:
    """Return the field of `field=value,value,...`, and its values as YAML.

    Raises
    ------
    ConfigError
        When the text is not of that form; it names the option.
    """
    field, equals, values = text.partition("=")
    try:
        parsed = yaml.safe_load(f"[{values}]")
    except yaml.YAMLError:
        parsed = None
    if not equals or not parsed:
        raise ConfigError(
            f"{option} {text!r} is not field=value,value", hint=f"{option} train.lr=1e-4,3e-4"
        )
    return field.strip(), [yaml.safe_dump(value, default_flow_style=True).split("\n")[0]
                           for value in parsed]  # fmt: skip


def repetition(paths: RunPaths) -> RunPaths:
    """Make the run that repeats another from its own files, under a new name.

    Raises
    ------
    ConfigError
        When the first run is not complete.
    """
    paths.require_complete("evaluate")
    return fork(paths, f"{paths.name}-reproduced", paths.load_config())


def comparison(first: RunPaths, second: RunPaths) -> dict[str, Any]:
    """Say whether a repetition gave the same result.

    Returns
    -------
    dict
        ``same`` (weights and scores are equal in every bit), ``weights``, ``scores``, the largest
        ``score_difference``, and the ``differences`` between the two runs' code and packages.
    """
    digests = [_digests(paths) for paths in (first, second)]
    scores = [read_json(paths.scores) for paths in (first, second)]
    gaps = [
        abs(a[key] - b[key])
        for fold_a, fold_b in zip(*scores, strict=True)
        for a, b in zip(fold_a["rows"], fold_b["rows"], strict=True)
        for key in ("model_r", "ridge_r")
        if a.get(key) is not None and b.get(key) is not None
    ]
    before, after = (provenance.read(paths).get("attempts", [{}])[-1] for paths in (first, second))
    keys = ("code", "packages", "image", "config", "inputs", "resources", "machine")
    differing = config_io.differences(
        {key: before.get(key) for key in keys}, {key: after.get(key) for key in keys}
    )
    weights = digests[0] == digests[1]
    return {
        "same": weights and scores[0] == scores[1],
        "weights": weights,
        "scores": scores[0] == scores[1],
        "score_difference": max(gaps, default=0.0),
        "differences": differing,
    }


def _digests(paths: RunPaths) -> dict[str, Any]:
    """Return the sha256 of each fold's best weights, by fold."""
    found = {}
    for folder in checkpoints.folds(paths.checkpoints()):
        found[folder.name] = checkpoints.manifest_of(checkpoints.best(folder))["files"]
    return found
