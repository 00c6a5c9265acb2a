"""Weights that follow the gradients: their shares, their limits, their state."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from giblet_hpc.config.loss import Loss
from giblet_hpc.training.balance import MEMORY, Balance, gradient_norms
from giblet_hpc.training.global_sums import ALONE
from tests.training.test_loop import train

WEIGHTS = {"fmri": 1.0, "video": 0.3, "audio": 0.0}


def components(bottleneck: torch.Tensor) -> dict[str, torch.Tensor]:
    # The picture's gradient is a thousand times that of the scans.
    return {
        "fmri": bottleneck[0].square().sum(),
        "video": 0.3 * 1000 * bottleneck[1].square().sum(),
        "audio": 0.0 * bottleneck.sum(),
    }


def test_gradients_get_the_shares_of_their_weights() -> None:
    balance = Balance(Loss(balance="gradient"), WEIGHTS)
    bottleneck = torch.ones(2, 4, requires_grad=True)
    for _ in range(3):
        parts = components(bottleneck)
        norms = gradient_norms(parts, bottleneck)
        factors = balance(parts, norms, ALONE)
        after = {name: float(norms[name] * factors[name]) for name in factors}
        assert after["video"] / after["fmri"] == pytest.approx(0.3, rel=1e-5)
        assert sum(after.values()) == pytest.approx(float(sum(norms.values())), rel=1e-5)
    assert set(factors) == {"fmri", "video"}, "a component without weight is none"


def test_the_averages_forget_slowly() -> None:
    balance = Balance(Loss(balance="uncertainty"), {"fmri": 2.0})
    average = 0.0
    for step, value in enumerate([8.0, 2.0, 4.0], 1):
        factor = balance({"fmri": torch.tensor(value)}, {}, ALONE)["fmri"]
        average = MEMORY * average + (1 - MEMORY) * value / 2
        assert float(factor) == pytest.approx(1 / (2 * average / (1 - MEMORY**step)))


@pytest.mark.parametrize("before", [0, 2])
def test_a_step_that_is_not_finite_leaves_no_trace(before: int) -> None:
    kept, spoilt = (Balance(Loss(balance="uncertainty"), {"fmri": 1.0}) for _ in range(2))
    for balance in (kept, spoilt):
        for _ in range(before):
            balance({"fmri": torch.tensor(3.0)}, {}, ALONE)
    spoilt({"fmri": torch.tensor(float("nan"))}, {}, ALONE)
    factors = [b({"fmri": torch.tensor(5.0)}, {}, ALONE)["fmri"] for b in (kept, spoilt)]
    assert float(factors[0]) == float(factors[1])


def test_a_component_is_cut_by_itself() -> None:
    balance = Balance(Loss(component_clip=3.0), WEIGHTS)
    bottleneck = torch.ones(2, 4, requires_grad=True)
    parts = components(bottleneck)
    norms = gradient_norms(parts, bottleneck)
    factors = balance(parts, norms, ALONE)
    assert float(norms["video"] * factors["video"]) == pytest.approx(3.0)
    assert float(norms["fmri"]) == pytest.approx(4.0)
    assert float(norms["fmri"] * factors["fmri"]) == pytest.approx(3.0)
    small = gradient_norms({"fmri": parts["fmri"] / 10, "video": parts["fmri"]}, bottleneck)
    assert float(balance(parts, small, ALONE)["fmri"]) == 1.0


@pytest.mark.parametrize(
    "settings",
    [("loss.balance=gradient",), ("loss.balance=uncertainty", "loss.component_clip=0.01")],
)
def test_training_resumes_with_its_averages(tmp_path: Path, settings: tuple[str, ...]) -> None:
    finished, whole = train(tmp_path / "whole", *settings)
    assert finished
    assert float(whole["balance.steps"]) > 0 or settings[0] == "loss.balance=fixed"
    asked = iter([False] * 4 + [True])
    train(tmp_path / "stopped", *settings, should_stop=lambda: next(asked))
    finished, resumed = train(tmp_path / "stopped", *settings)
    assert finished
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    rows = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    noted = [row for row in map(json.loads, rows) if row["kind"] == "train"]
    assert all("factor/fmri" in row for row in noted)


def test_fixed_weights_leave_no_trace(tmp_path: Path) -> None:
    _, plain = train(tmp_path / "plain")
    assert not any("balance" in name for name in plain)
