from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from giblet_hpc.config import io
from giblet_hpc.errors import ConfigError
from giblet_hpc.plans import study_size
from giblet_hpc.plans.study_size import StudySize
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.training import parallel
from giblet_hpc.training.parallel import with_settled_mode
from giblet_hpc.training.strategy import DataParallel
from giblet_hpc.training.world import World

CONFIG = Path(__file__).parents[2] / "configs" / "demo.yaml"
ALONE = World(0, 0, 1, torch.device("cpu"))
SIZE = StudySize({"video": (2, 18, 32, 3), "audio": (8, 112), "text": (40,)}, 100, 2, 300, 1000)


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    return RunPaths(tmp_path / "one")


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_size, "of_store", lambda config, inputs: SIZE)


def test_auto_is_settled_and_others_stay(stored: None, paths: RunPaths) -> None:
    auto = io.load(CONFIG, ["model.parallel=auto"])
    settled = with_settled_mode(auto, paths, {}, ALONE)
    assert settled.model.parallel == "ddp"
    assert isinstance(parallel.strategy_of(settled, ALONE), DataParallel)
    fsdp = io.load(CONFIG, ["model.parallel=fsdp"])
    assert with_settled_mode(fsdp, paths, {}, ALONE) is fsdp


def test_auto_that_fits_nowhere(
    stored: None, paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = parallel.place_of(ALONE)
    none = replace(place, gpu=replace(place.gpu, memory=0.5))
    monkeypatch.setattr(parallel, "place_of", lambda world: none)
    with pytest.raises(ConfigError, match="no mode fits") as caught:
        with_settled_mode(io.load(CONFIG, ["model.parallel=auto"]), paths, {}, ALONE)
    assert "giblet-hpc plan" in caught.value.hint
