from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from giblet_hpc.cli.main import main
from giblet_hpc.config import io
from giblet_hpc.errors import ConfigError, DataError
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.training import checkpoint
from giblet_hpc.training.export import export_weights, exported
from giblet_hpc.training.pieces import whole
from giblet_hpc.training.world import World
from tests.training.test_loop import train

CONFIG = Path(__file__).parents[2] / "configs" / "demo.yaml"


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    """A run with two checkpoints, of which the first is the best."""
    paths = RunPaths(tmp_path / "one")
    paths.create(io.load(CONFIG, []))
    writer = checkpoint.Writer(
        paths.checkpoints(), World(0, 0, 1, torch.device("cpu")), keep_last=2
    )
    for step in (1, 2):
        tensors = {"model/a.weight": torch.full((3, 2), step), "optimizer/0/step": torch.ones(())}
        writer.save(whole(tensors), {"step": step}, best=step == 1)
    writer.wait()
    return paths


def test_weights_alone_by_their_own_names(run: RunPaths, tmp_path: Path) -> None:
    target = tmp_path / "weights.safetensors"
    said = CliRunner().invoke(main, ["export", "one", str(target), "--runs", str(tmp_path)])
    assert said.exit_code == 0, said.output
    assert "weights of run one at step 1" in said.stderr
    found = load_file(target)
    assert set(found) == {"a.weight"}
    assert (found["a.weight"] == 1).all()
    assert export_weights(run.checkpoints(), target, step=2) == 2
    assert (load_file(target)["a.weight"] == 2).all()


def test_what_is_not_there_or_damaged(run: RunPaths, tmp_path: Path) -> None:
    target = tmp_path / "weights.safetensors"
    with pytest.raises(ConfigError, match="no checkpoint of step 7; there are: 1, 2"):
        export_weights(run.checkpoints(), target, step=7)
    file = run.checkpoints() / "step-00000001" / "rank-00000.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match="is damaged"):
        export_weights(run.checkpoints(), target)
    assert not target.exists()


def test_training_starts_from_an_exported_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, weights = train(tmp_path / "first")
    file = tmp_path / "weights.safetensors"
    export_weights(RunPaths(tmp_path / "first").checkpoints(), file)
    still = ("train.lr=1e-12", "train.min_lr=0", "train.weight_decay=0", "train.epochs=1")
    with caplog.at_level("INFO"):
        _, again = train(tmp_path / "again", f"train.start_from={file}", *still)
        _, others = train(
            tmp_path / "others", f"train.start_from={file}", "model.temporal.rank=9", *still
        )
    assert "as drawn: none" in caplog.text
    for name, values in weights.items():
        torch.testing.assert_close(again[name], values, rtol=0, atol=1e-6)
    assert "as drawn: voxels.project.weight" in caplog.text
    same = [name for name in weights if weights[name].shape == others[name].shape]
    assert len(same) < len(weights)
    for name in same:
        torch.testing.assert_close(others[name], weights[name], rtol=0, atol=1e-6)


def test_files_that_training_cannot_start_from(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    with pytest.raises(ConfigError, match=r"train\.start_from: .* cannot be read"):
        exported(file)
    file.write_bytes(b"not one of them")
    with pytest.raises(ConfigError, match="cannot be read"):
        train(tmp_path / "a", f"train.start_from={file}")
    save_file({"layer": torch.ones(3)}, file)
    with pytest.raises(ConfigError, match="has no tensor of this network"):
        train(tmp_path / "b", f"train.start_from={file}")
