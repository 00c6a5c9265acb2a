"""What ranks have predicted, put together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from giblet_hpc.evaluation import prediction
from giblet_hpc.splits import Block
from giblet_hpc.training.windows import covering_windows


def test_figures_are_averages_over_trs_of_all_ranks() -> None:
    ranks = [
        {"sums": {"video": {"mse": 6.0}, "text": {}}, "trs": 2.0},
        {"sums": {"video": {"mse": 3.0}, "text": {}}, "trs": 4.0},
        {"sums": {"video": {}, "text": {}}, "trs": 0.0},
    ]
    assert prediction.mean_figures(ranks) == {"video": {"mse": 1.5}}


@given(st.integers(1, 5), st.lists(st.integers(8, 30), min_size=1, max_size=3))
def test_windows_of_ranks_come_back_in_the_order_of_trs(ranks: int, lengths: list[int]) -> None:
    import tempfile

    blocks = tuple(Block(f"run{n}", 3, 3 + trs) for n, trs in enumerate(lengths))
    windows = covering_windows(blocks, 8)
    truth = {
        block.run: 100 * number + np.arange(block.start, block.stop)
        for number, block in enumerate(blocks)
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for rank in range(ranks):
            rows = np.zeros((len(windows[rank::ranks]), 1, 8, 1), np.float32)
            for row, window in zip(rows, windows[rank::ranks], strict=True):
                course = truth[window.block.run][window.start - 3 :][:8]
                row[0, : len(course), 0] = course
            np.save(folder / f"rank-{rank}.npy", rows)
        prediction._assemble(folder, windows, blocks, ranks)
        joined = np.load(folder / "predictions.npy")
        assert [path.name for path in folder.iterdir()] == ["predictions.npy"]
    np.testing.assert_array_equal(joined[0, :, 0], np.concatenate(list(truth.values())))
