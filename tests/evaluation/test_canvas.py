"""Figures that belong to no window system."""

from __future__ import annotations

from matplotlib.figure import Figure

from giblet_hpc.evaluation import canvas


def test_a_figure_has_its_size_and_no_window() -> None:
    figure = canvas.new_figure(4, 2)
    assert isinstance(figure, Figure)
    assert figure.get_size_inches().tolist() == [4, 2]
