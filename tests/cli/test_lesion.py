"""`lesion`: what it prints; what it does is in tests/stages/test_evaluate.py."""

from __future__ import annotations

from giblet_hpc.cli.lesion import _lines


def test_moves_are_in_columns() -> None:
    row = {"lesion": "V1", "size": 12, "modality": "video", "moved": 0.5, "moved_random": 0.25,
           "moved_p": 0.125}  # fmt: skip
    assert _lines([row, {**row, "moved_random": None, "moved_p": None}]) == [
        "silent  size  of     moves  random ones  p",
        "V1      12    video  0.500  0.250        0.125",
        "V1      12    video  0.500",
    ]
