"""What evaluation keeps, and what it says of the network."""

from __future__ import annotations

from pathlib import Path

import pytest

from giblet_hpc.config import io
from giblet_hpc.evaluation import bootstrap, tables
from giblet_hpc.files import write_json
from giblet_hpc.runs import checkpoints
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.stages import evaluate


@pytest.mark.parametrize(
    ("model", "ridge", "said"),
    [
        (0.2, 0.1, "The network (mean r 0.200 [0.100, 0.300]) is better than ridge (0.100 ["),
        (0.1, 0.2, "Ridge (mean r 0.200 [0.100, 0.300]) is better than the network"),
        (0.2, 0.19, "cannot be told apart: their difference is +0.010 [-0.040, +0.060]"),
    ],
)
def test_the_verdict_names_the_better_one(model: float, ridge: float, said: str) -> None:
    difference = [model - ridge - 0.05, model - ridge + 0.05]
    row = {
        "model_r": model, "model_r_interval": [model - 0.1, model + 0.1],
        "ridge_r": ridge, "ridge_r_interval": [ridge - 0.1, ridge + 0.1],
        "difference": model - ridge, "difference_interval": difference,
        "verdict": bootstrap.verdict(difference),
    }  # fmt: skip
    assert said in tables.in_words(row)


def test_without_intervals_there_is_no_verdict() -> None:
    assert "too few test TRs" in tables.in_words({"model_r": 0.2, "ridge_r": 0.1})


def test_products_of_another_checkpoint_or_config_are_discarded(
    tmp_path: Path, demo_config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, paths = io.load(Path(demo_config)), RunPaths(tmp_path / "run")
    paths.create(config)
    write_json(paths.inputs, {"arrays": {}})
    files = {"state.pt": "a"}
    monkeypatch.setattr(checkpoints, "manifest_of", lambda best: {"files": files})
    folder = tmp_path / "evaluation"

    def kept(of: object = config) -> bool:
        folder.mkdir(exist_ok=True)
        (folder / "predictions.npy").touch()
        evaluate._discard_others(folder, of, paths, [tmp_path])  # type: ignore[arg-type]
        return (folder / "predictions.npy").is_file()

    assert not kept(), "nothing says what they were made from"
    assert kept()
    files["state.pt"] = "b"
    assert not kept()
    assert kept()
    assert not kept(io.load(Path(demo_config), ["evaluate.ridge.components=5"]))
    assert (folder / "made_from.json").is_file()
