"""Preprocess part by part, as a job array makes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from giblet_hpc.config import io
from giblet_hpc.errors import ConfigError
from giblet_hpc.files import read_json
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.stages import preprocess
from giblet_hpc.store import FeatureStore


def test_parts_make_what_the_whole_makes(
    tmp_path: Path, tiny_options: list[str], demo_config: str
) -> None:
    config = io.load(Path(demo_config), tiny_options)
    assert config.study.store is not None
    paths = RunPaths(tmp_path / "run")
    paths.create(config)
    preprocess.run(config, paths, part="plan")
    store = FeatureStore(config.study.store)
    assert store.missing(store.array("bold/01/run1")) and not paths.inputs.is_file()
    for part in ("subject-01", "run1-text"):
        preprocess.run(config, paths, part=part)
    assert not store.missing(store.array("bold/01/run1"))
    assert not store.missing(store.array("stimulus/run1/text"))
    assert store.missing(store.array("bold/02/run1"))
    preprocess.run(config, paths)
    inputs = read_json(paths.inputs)
    assert inputs["subjects"] == ["01", "02", "03"]
    assert inputs["content"] == {name: store.content(name) for name in inputs["arrays"]}
    assert store.verify() == []
    again = io.load(Path(demo_config), [*tiny_options, "bold.high_pass=0.005"])
    with pytest.raises((ConfigError, ValueError), match="was made with other settings"):
        preprocess.run(again, paths)
