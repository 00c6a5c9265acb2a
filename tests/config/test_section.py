"""Sections refuse what they do not know, and describe themselves."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from giblet_hpc.config.section import Count, Fraction, Name, Section


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
