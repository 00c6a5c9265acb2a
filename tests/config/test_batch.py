from __future__ import annotations

from pathlib import Path

import pytest

from giblet_hpc.config import io
from giblet_hpc.config.batch import require_shared_batch
from giblet_hpc.errors import ConfigError

DENSE = ["model.kind=dense", "train.window_trs=1"]


def test_batch_norm_needs_enough_trs_of_all_ranks_together(demo_config: str) -> None:
    config = io.load(Path(demo_config), [*DENSE, "train.batch_windows=16"])
    for ranks in (1, 2, 16):
        require_shared_batch(config, ranks)
    parts = io.load(Path(demo_config), [*DENSE, "train.batch_windows=12", "train.accumulation=2"])
    with pytest.raises(ConfigError, match="BatchNorm would see 6 TRs") as caught:
        require_shared_batch(parts, 3)
    assert caught.value.hint.startswith("--set train.batch_windows=18, or")
    layer = io.load(Path(demo_config), [*DENSE, "train.batch_windows=3", "model.norm=layer"])
    require_shared_batch(layer, 3)
    for ranks in (3, 9):
        require_shared_batch(io.load(Path(demo_config), [*DENSE, "train.batch_windows=18",
                                                         "train.accumulation=2"]), ranks)  # fmt: skip
