"""A fold's model, ready to predict."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from giblet_hpc.config import io
from giblet_hpc.errors import ConfigError
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.scans.tables import Columns
from giblet_hpc.splits import Block
from giblet_hpc.training import predictor, statistics
from giblet_hpc.training.feed import RunArrays, StudyArrays
from giblet_hpc.training.pieces import Source, merged, whole, write_pieces
from giblet_hpc.training.strategy import DataParallel
from giblet_hpc.training.windows import Window
from giblet_hpc.training.world import World
from tests.conftest import TINY

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def made() -> tuple[predictor.Predictor, StudyArrays]:
    file = Path(__file__).parents[2] / "configs" / "demo.yaml"
    config = io.load(file, [*TINY, "features.audio=null", "features.text=null"])
    random = np.random.default_rng(0)
    video = random.integers(0, 256, (40, 3, 18, 32, 3), dtype=np.uint8)
    bold = random.standard_normal((2, 40, 5)).astype(np.float32)
    run = RunArrays({"video": video}, bold, np.ones((2, 40), bool))
    study = StudyArrays({"run1": run}, ("x", "y"), np.ones(5, bool), Columns(5), {})
    alone = World(0, 0, 1, CPU)
    found = statistics.fit(modalities_of(config.features), study, [Block("run1", 0, 30)], alone)
    strategy = DataParallel(alone)
    return predictor.make_predictor(config, study, found, strategy), study


def test_a_prediction_has_a_value_for_each_tr_subject_and_voxel(
    made: tuple[predictor.Predictor, StudyArrays],
) -> None:
    model, study = made
    batch = model.reader([Window(Block("run1", 0, 40), 8), Window(Block("run1", 0, 40), 16)])
    output = model.predict(batch)
    trs = model.config.train.window_trs
    assert output.bold.shape == (2, trs, len(study.subjects), study.voxels)
    assert output.reconstruction["video"].shape[:2] == (2, trs)


def source_of(folder: Path, state: dict[str, torch.Tensor]) -> Source:
    folder.mkdir()
    pieces = whole({f"model/{name}": values for name, values in state.items()})
    write_pieces(folder / "all", pieces)
    return Source(folder, merged({piece.name: piece.place("all")} for piece in pieces))


def test_weights_come_from_the_seed_and_from_checkpoints(
    made: tuple[predictor.Predictor, StudyArrays], tmp_path: Path
) -> None:
    model, _ = made
    again = predictor.build_model(model.config, model.shapes, model.modalities)
    state = {key: value.clone() for key, value in again.state_dict().items()}
    mine = model.model.state_dict()
    assert all(torch.equal(mine[key], value) for key, value in state.items())
    changed = {key: value + 1 for key, value in state.items()}
    model.load(source_of(tmp_path / "changed", changed))
    assert not model.model.training
    assert all(torch.equal(mine[key], value) for key, value in changed.items())
    model.load(source_of(tmp_path / "same", state))


class Drawing:
    """A modality that is reconstructed at three places, drawn where a step is given."""

    reconstructed = True

    def positions(self, generator: torch.Generator | None) -> torch.Tensor:
        return torch.arange(3) if generator is None else torch.rand(3, generator=generator)


def test_places_of_a_step_are_drawn_from_the_seed(
    made: tuple[predictor.Predictor, StudyArrays],
) -> None:
    model = dataclasses.replace(made[0], modalities={"x": Drawing()})
    assert torch.equal(model.positions(7)["x"], model.positions(7)["x"])
    assert not torch.equal(model.positions(7)["x"], model.positions(8)["x"])
    assert torch.equal(model.positions(None)["x"], torch.arange(3))
    assert made[0].positions(7) == {}, "frames are reconstructed whole"


def test_bf16_by_name_needs_a_device_that_has_it(
    made: tuple[predictor.Predictor, StudyArrays],
) -> None:
    train = made[0].config.train.model_copy(update={"precision": "bf16"})
    with pytest.raises(ConfigError, match="bf16"):
        predictor.uses_bf16(made[0].config.model_copy(update={"train": train}), CPU)
