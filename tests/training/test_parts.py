"""Recomputed and compiled parts: the same numbers, less memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from giblet_hpc.config.io import load
from giblet_hpc.config.model import Model
from giblet_hpc.errors import ConfigError
from giblet_hpc.plans.hardware import GPUS, LINKS, Place
from giblet_hpc.training import optimizer, parts, planner
from giblet_hpc.training.expected_size import expected_size
from tests.training.test_loop import train

CONFIGS = Path(__file__).parents[2] / "configs"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        wide = [nn.Linear(8, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Dropout(0.5)]
        self.first = nn.Sequential(*wide, nn.Linear(512, 8))
        self.second = nn.Linear(8, 1)

    @property
    def parts(self) -> list[nn.Module]:
        return [self.first]


def step(*, recompute: bool) -> tuple[dict[str, torch.Tensor], int]:
    """One step's gradients and buffers, and the bytes that were kept for the backward pass."""
    net, config = Net(), load(CONFIGS / "demo.yaml", [f"model.recompute={recompute}"])
    parts.apply_options(config, net)
    own, kept = {p.data_ptr() for p in net.parameters()}, {}

    def pack(values: torch.Tensor) -> torch.Tensor:
        storage = values.untyped_storage()
        if values.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return values

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda values: values):
        loss = net.second(net.first(torch.ones(64, 8) * torch.arange(64)[:, None])).square().sum()
    loss.backward()
    found = {name: p.grad for name, p in net.named_parameters()}
    return {**found, **dict(net.named_buffers())}, sum(kept.values())


def test_recomputed_parts_give_the_same_gradients_and_count_a_batch_once() -> None:
    plain, kept = step(recompute=False)
    again, less = step(recompute=True)
    assert plain.keys() == again.keys()
    for name, values in plain.items():
        assert torch.equal(values, again[name]), name
    assert less < kept / 20


def test_training_with_recomputed_parts_is_bitwise_the_same(tmp_path: Path) -> None:
    _, plain = train(tmp_path / "plain")
    _, again = train(tmp_path / "again", "model.recompute=true")
    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[name], again[name]) for name in plain)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_training_with_compiled_parts(tmp_path: Path) -> None:
    # Compiled code draws other numbers for dropout.
    calm = "model.temporal.dropout=0"
    _, plain = train(tmp_path / "plain", calm)
    _, compiled = train(tmp_path / "compiled", calm, "model.compile=true")
    assert plain.keys() == compiled.keys()
    for name, values in plain.items():
        torch.testing.assert_close(compiled[name], values, rtol=1e-3, atol=1e-4)


def test_without_a_compiler_it_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(optimizer.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"model\.compile compiles on the node and needs a C"):
        train(tmp_path, "model.compile=true")


def test_settings_that_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="compile is for parallel: ddp"):
        Model(compile=True, parallel="fsdp")
    with pytest.raises(ValidationError, match="exclude each other"):
        Model(compile=True, recompute=True)


def test_a_plan_counts_what_is_recomputed() -> None:
    place = Place(GPUS["a6000"], 1, 1, LINKS["pcie"], LINKS["infiniband"])
    found = {}
    for recompute in (False, True):
        config = load(CONFIGS / "sherlock_production.yaml", [f"model.recompute={recompute}"])
        size = expected_size(config, voxels=80_000, fps=25.0)
        memory = planner.estimates(config, size, place)["ddp"].memory
        found[recompute] = memory["activations"]
    # Most is the frames' own, which are one part.
    assert 0.5 * found[False] < found[True] < 0.95 * found[False]
