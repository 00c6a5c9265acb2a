"""Settings to choose from: every combination, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from giblet_hpc.config import choices, io
from giblet_hpc.errors import ConfigError

DEMO = Path(__file__).parents[2] / "configs" / "demo.yaml"
BLOCKS = "split.inner_blocks=3"


def test_every_combination_is_a_config_of_its_own(tmp_path: Path) -> None:
    config = io.load(DEMO, [BLOCKS, "train.choose={loss.map_penalty: [0, 3], model.bottleneck: [8, 9, 10]}"])  # fmt: skip
    found = config.candidates
    assert [(one.loss.map_penalty, one.model.bottleneck) for one in found] == [
        (0, 8), (0, 9), (0, 10), (3, 8), (3, 9), (3, 10),
    ]  # fmt: skip
    assert all(not one.train.choose for one in found)
    assert found[0].study == config.study
    io.save(config, tmp_path / "again.yaml")
    assert io.load(tmp_path / "again.yaml") == config
    assert io.load(DEMO).candidates == []
    assert choices.in_words({"train.lr": 0.1, "train.epochs": 3}) == "train.lr=0.1, train.epochs=3"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{study.tr: [1, 2]}", "study.tr cannot be chosen"),
        ("{train.seed: [1, 2]}", "train.seed cannot be chosen"),
        (
            "{features.text.dimensions: [1, 2]}",
            "cannot be chosen; fields of model, loss, train can",
        ),
        ("{train.lr: [1]}", "train.lr needs two values or more"),
        ("{train.lr: [0.1, -1]}", "train.choose train.lr=-1: train.lr"),
        ("{train.speed: [1, 2]}", "train.choose train.speed=1: train.speed"),
        ("{model.size.width: [1, 2]}", "there is no field model.size.width"),
        ("{train.lr.x: [1, 2]}", "there is no field train.lr.x"),
        ("{train: [1, 2]}", "train cannot be chosen"),
        ("{model.span: [4, 8]}", "model.span cannot be chosen"),
        ("{model.temporal.fir_seconds: [9, 90]}", "shorter than the model's memory"),
    ],
)
def test_what_cannot_be_chosen_is_refused_before_any_work(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        io.load(DEMO, [BLOCKS, f"train.choose={text}"])
    assert said in str(caught.value)


def test_blocks_to_choose_by_are_needed() -> None:
    with pytest.raises(ConfigError, match="train.choose needs split.inner_blocks"):
        io.load(DEMO, ["train.choose={train.lr: [0.1, 0.2]}"])
