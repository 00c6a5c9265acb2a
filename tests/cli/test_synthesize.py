from __future__ import annotations

from giblet_hpc.cli import synthesize
from tests.cli.conftest import Invoke


def test_lengths_that_are_none(invoke: Invoke) -> None:
    assert "is not a list of numbers" in invoke("synthesize", "x", "--trs", "a", code=2).stderr
    assert invoke("synthesize", "x", "--subjects", "1", code=2).stderr
    assert synthesize.synthesize_command.name == "synthesize"
