"""A network's layers, against the network itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from giblet_hpc.config import io
from giblet_hpc.config.run import RunConfig
from giblet_hpc.diagnosis import network
from giblet_hpc.plans.study_size import StudySize
from giblet_hpc.training import network_size
from giblet_hpc.training.network_size import layers_of, meta_model, network_of

CONFIGS = Path(__file__).parents[2] / "configs"
ROWS = {"video": (25, 90, 160, 3), "audio": (8, 112), "text": (300,)}


def planned(
    name: str, *settings: str, voxels: int = 5000, subjects: int = 3
) -> tuple[RunConfig, StudySize]:
    config = io.load(CONFIGS / name, settings)
    rows = {modality: ROWS[modality] for modality in config.features.modalities}
    return config, StudySize(rows, voxels, subjects, 2000, 0)


@pytest.mark.parametrize("name", ["demo.yaml", "sherlock_dense.yaml"])
def test_layers_add_up_to_the_network(name: str) -> None:
    config, size = planned(name)
    layers = layers_of(config, size)
    whole = network_of(config, size)
    model = meta_model(config, size)
    assert sum(layer.weights for layer in layers) == whole.weights
    assert whole.weights == sum(p.numel() for p in model.parameters())
    names = {name for name, _ in model.named_parameters()}
    assert {f"{layer.name}.{one}" for layer in layers for one in layer.tensors} == names
    inner = [a for a in layers if not any(b.name.startswith(f"{a.name}.") for b in layers)]
    assert sum(layer.operations for layer in inner) <= whole.operations
    assert sum(layer.operations for layer in inner) > 0.9 * whole.operations
    assert network_size.TRACED == 2


def test_a_table_has_a_line_for_each_layer() -> None:
    looked = network.NetworkCheck(*planned("demo.yaml"))
    lines = network.table(looked.facts()["layers"]).splitlines()
    assert len(lines) == 1 + len(looked.facts()["layers"])
    assert lines[1].startswith("encoders.video")
    assert [one.level for one in looked.findings()] == ["ok"] * 4


def test_more_weights_than_scans_can_tell_apart() -> None:
    config, size = planned("sherlock_dense.yaml", voxels=500, subjects=1)
    found = {one.check: one for one in network.NetworkCheck(config, size).findings()}
    assert found["beside the study"].level == "warn"
    assert "model.width" in found["beside the study"].fix
    assert found["largest tensors"].seen.count(",") > 5
