"""Sections refuse what they do not know, and describe themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from giblet_hpc.config import io
from giblet_hpc.config.section import Count, Fraction, Name, Section, whole_trs


class Example(Section):
    """For this test."""

    share: Fraction = 0.5
    """How much of it,
    in all."""
    count: Count = 1


def test_unknown_fields_and_later_changes_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Example(shar=0.1)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="frozen"):
        Example().share = 0.2  # type: ignore[misc]


@pytest.mark.parametrize(("field", "value"), [("share", 1.0), ("share", -0.1), ("count", 0)])
def test_bounds(field: str, value: float) -> None:
    with pytest.raises(ValidationError):
        Example(**{field: value})


def test_the_schema_has_the_docstrings_of_fields() -> None:
    properties = Example.model_json_schema()["properties"]
    assert properties["share"]["description"] == "How much of it,\nin all."
    assert "description" not in properties["count"]


@pytest.mark.parametrize("name", ["a", "run-1_b.2", "9"])
def test_names(name: str) -> None:
    assert TypeAdapter(Name).validate_python(name) == name


@pytest.mark.parametrize("name", ["", ".", "../a", "a b", "-x", "a/b", "x" * 65])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Name).validate_python(name)


@given(seconds=st.floats(0, 60), tr=st.floats(0.3, 4))
def test_whole_trs_cover_a_time_and_no_more(seconds: float, tr: float) -> None:
    trs = whole_trs(seconds, tr)
    assert trs * tr >= seconds - 1e-5
    assert (trs - 1) * tr < seconds or trs == 0


@pytest.mark.parametrize(("tr", "lags", "purge"), [(0.72, 21, 21), (1.5, 10, 10), (2.0, 8, 8)])
def test_memory_and_gaps_are_as_long_at_every_tr(tr: float, lags: int, purge: int) -> None:
    demo = Path(__file__).parents[2] / "configs" / "demo.yaml"
    config = io.load(demo, [f"study.tr={tr}"])
    assert config.model.temporal.fir_trs(tr) == lags
    assert (config.memory_trs, config.purge_trs) == (lags - 1, purge)
