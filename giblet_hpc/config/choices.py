"""Settings to choose from: every combination of some fields' values."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

SECTIONS = ("model", "loss", "train")
"""Whose fields can be chosen: those that preprocess does not read and scores do not depend on."""
FIXED = ("train.choose", "train.seed", "train.seeds", "model.parallel", "model.span")


def combinations(choose: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return every combination of values, by field."""
    if not choose:
        return []
    return [
        dict(zip(choose, values, strict=True)) for values in itertools.product(*choose.values())
    ]


def require_choosable(choose: Mapping[str, Sequence[Any]]) -> None:
    """Refuse fields that cannot be chosen.

    Raises
    ------
    ValueError
        When a field is of another section, or has fewer than two values.
    """
    for field, values in choose.items():
        section, dot, _ = field.partition(".")
        if section not in SECTIONS or not dot or field in FIXED:
            raise ValueError(
                f"train.choose: {field} cannot be chosen; fields of {', '.join(SECTIONS)} can, but "
                f"for {', '.join(FIXED)}"
            )
        if len(values) < 2:
            raise ValueError(f"train.choose: {field} needs two values or more")


def with_settings(tree: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config's plain values with some fields set, and nothing left to choose.

    Raises
    ------
    ValueError
        When a field lies in nothing that has fields.
    """
    changed = deepcopy(dict(tree))
    for field, value in {**settings, "train.choose": {}}.items():
        *parents, last = field.split(".")
        node: dict[str, Any] = changed
        for parent in parents:
            if not isinstance(node.get(parent), dict):
                raise ValueError(f"train.choose: there is no field {field}")
            node = node[parent]
        node[last] = value
    return changed


def in_words(settings: Mapping[str, Any]) -> str:
    """Return settings as `field=value`, by commas."""
    return ", ".join(f"{field}={value}" for field, value in settings.items())
