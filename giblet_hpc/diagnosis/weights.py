"""What a checkpoint's tensors hold, layer by layer, read a few rows at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from giblet_hpc.findings import Finding
from giblet_hpc.training.pieces import Source

PART_BYTES = 2**26
"""Of a tensor that are read at a time."""
TINY = 1e-12
DEAD = 0.5
"""Share of a layer's rows without a weight that makes it one that does nothing."""


@dataclass
class Numbers:
    """Figures of a tensor, gathered part by part.

    Parameters
    ----------
    count : int
        Numbers seen so far; the other fields likewise.
    """

    count: int = 0
    low: float = math.inf
    high: float = -math.inf
    total: float = 0.0
    squares: float = 0.0
    bad: int = 0
    zeros: int = 0
    rows: int = 0
    empty_rows: int = 0
    moved: float = field(default=0.0)
    """Sum of squared differences from another checkpoint."""

    def add(self, values: torch.Tensor, other: torch.Tensor | None) -> None:
        """Take in some rows, and the same rows of another checkpoint."""
        flat = values.double()
        flat = flat.reshape(len(flat), -1) if flat.ndim else flat.reshape(1, 1)
        good = flat.nan_to_num(0.0, 0.0, 0.0)
        self.bad += int((~flat.isfinite()).sum())
        self.count += flat.numel()
        if flat.numel():
            self.low = min(self.low, float(good.min()))
            self.high = max(self.high, float(good.max()))
        self.total += float(good.sum())
        self.squares += float(good.square().sum())
        self.zeros += int((flat == 0).sum())
        self.rows += len(flat)
        self.empty_rows += int((good.abs().amax(1) < TINY).sum()) if flat.numel() else 0
        if other is not None:
            before = other.double().reshape(good.shape).nan_to_num(0.0)
            self.moved += float((good - before).square().sum())

    def facts(self) -> dict[str, float]:
        """Return low, high, mean, SD, and the numbers of what is not finite or zero."""
        mean = self.total / max(1, self.count)
        return {
            "count": self.count, "low": self.low, "high": self.high, "mean": mean,
            "sd": math.sqrt(max(0.0, self.squares / max(1, self.count) - mean**2)),
            "norm": math.sqrt(self.squares), "not_finite": self.bad, "zeros": self.zeros,
        }  # fmt: skip


def parts(source: Source, name: str) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield a tensor in rows that are few enough, with where they are."""
    shape = source.shape(name)
    if not shape or not math.prod(shape):
        yield slice(0, 0), source.read(name)
        return
    rows = max(1, PART_BYTES // (4 * math.prod(shape[1:])))
    for start in range(0, shape[0], rows):
        here = slice(start, min(start + rows, shape[0]))
        yield here, source.read(name, 0, here)


def layer(source: Source, name: str, other: Source | None) -> dict[str, Any]:
    """Return a tensor's figures, and how far it has moved since another checkpoint.

    Parameters
    ----------
    source : Source
    name : str
        As the checkpoint names it.
    other : Source, optional
        An earlier checkpoint, of the same network.
    """
    numbers = Numbers()
    for here, values in parts(source, name):
        before = None
        if other is not None:
            before = other.read(name, 0, here) if values.ndim else other.read(name)
        numbers.add(values, before)
        del values, before
        for opened in (source, other):
            if opened is not None:
                opened.release()
    facts: dict[str, Any] = {"name": name.partition("/")[2], "shape": list(source.shape(name)),
                             **numbers.facts(), "empty_rows": numbers.empty_rows,
                             "rows": numbers.rows}  # fmt: skip
    if other is not None:
        facts["moved"] = math.sqrt(numbers.moved) / max(TINY, math.sqrt(numbers.squares))
    return facts


def layers(
    source: Source, parameters: Sequence[str], other: Source | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the figures of each of the model's tensors, with those of its gradients' moments.

    Parameters
    ----------
    source : Source
    parameters : sequence of str
        Names of the model's parameters, in the order in which the optimizer numbers them.
    other : Source, optional
    """
    known, numbers = set(source.names()), {name: n for n, name in enumerate(parameters)}
    for name in sorted(known):
        if not name.startswith("model/"):
            continue
        facts = layer(source, name, other)
        own = name.removeprefix("model/")
        moment = f"optimizer/{numbers.get(own)}/exp_avg_sq"
        facts["parameter"] = own in numbers
        if moment in known:
            second = layer(source, moment, None)
            facts["gradient"] = math.sqrt(max(0.0, second["mean"]))
        yield facts


def findings(rows: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Return what is wrong with a checkpoint's tensors."""
    found = []
    for row in rows:
        check = str(row["name"])
        if row["not_finite"]:
            found.append(Finding(check, "fail", f"{row['not_finite']} numbers are not finite",
                                 "go back to an earlier checkpoint: resubmit --from; a lower "
                                 "train.lr"))  # fmt: skip
        if not row["parameter"]:
            if check.endswith("running_var") and row["low"] < TINY:
                found.append(Finding(check, "warn", "inputs of a BatchNorm do not vary",
                                     "what feeds it is dead"))  # fmt: skip
            continue
        if row.get("gradient") == 0:
            found.append(Finding(check, "fail", "it has never had a gradient",
                                 "is the weight of its part of the loss 0?"))  # fmt: skip
        elif row.get("moved") == 0:
            found.append(Finding(check, "fail", "it has not moved since the other checkpoint",
                                 "steps below the last bit of its type: weights in float32, or a "
                                 "higher train.lr"))  # fmt: skip
        if row["rows"] > 1 and row["empty_rows"] > DEAD * row["rows"]:
            found.append(Finding(check, "warn", f"{row['empty_rows']} of {row['rows']} rows are 0",
                                 "units that do nothing: a lower train.weight_decay"))  # fmt: skip
    return found or [Finding("weights", "ok", f"{len(rows)} tensors, all finite")]
