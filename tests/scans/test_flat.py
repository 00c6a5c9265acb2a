"""Pictures of values without a place."""

from __future__ import annotations

import numpy as np

from giblet_hpc.scans import flat


def test_every_value_or_every_so_many() -> None:
    figure = flat.strip_figure({"few": np.ones(5), "many": np.ones(9001)}, limit=2, label="r")
    few, many = figure.axes
    assert len(few.collections[0].get_offsets()) == 5
    assert len(many.collections[0].get_offsets()) <= 1.2 * flat.MOST_POINTS
    assert many.get_title() == "many (every 2th)" or "every" in many.get_title()
    assert few.get_ylim() == (-2, 2)
