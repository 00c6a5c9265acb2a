"""The rows of a report's tables, and what is said of them in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.evaluation import metrics
from giblet_hpc.evaluation.bootstrap import DIGITS, Draws, interval, verdict
from giblet_hpc.evaluation.chance import Chance
from giblet_hpc.evaluation.scores import Maps

WITHOUT, PRODUCT, UNIQUE, SEED = "without-", "product-", "unique-", "seed-"
MAIN = ("model", "ridge", "combined")
DIFFERENCES = (("difference", "model", "ridge"), ("gain", "combined", "ridge"))
"""Name of a difference, and the two predictors whose r it is of."""
SMALLEST_BEST = 0.01


def region_rows(
    maps: Maps,
    *,
    ceiling: NDArray[np.float64] | None,
    best: NDArray[np.float64] | None,
    members: Mapping[str, NDArray[np.bool_]],
    min_ceiling: float,
) -> list[dict[str, Any]]:
    """Return one row for all voxels and one for each region.

    Parameters
    ----------
    maps : dict
        From `scores.score_maps`, and the product measure of each band.
    ceiling : ndarray, shape (voxels,), optional
    best : ndarray, shape (subjects or 1, voxels), optional
        The best r where the truth is known.
    members : mapping of str to ndarray of bool, shape (voxels,)
        From `scores.members_of`.
    min_ceiling : float
        Voxels with a lower ceiling get no normalised r.
    """
    rows = []
    for name, chosen in members.items():
        row: dict[str, Any] = {"region": name, "voxels": int(chosen.sum())}
        for key, values in maps.items():
            predictor, _, score = key.rpartition("_")
            if key.startswith((PRODUCT, UNIQUE)):
                row[key] = _mean(values[:, chosen])
            elif score == "r":
                row[key] = metrics.fisher_mean(values[:, chosen])
                if predictor in MAIN:
                    row[f"{predictor}_median_r"] = float(np.nanmedian(values[:, chosen]))
            elif predictor in MAIN:
                row[key] = _mean(values[:, chosen])
        leading = maps[f"{_leading(maps)}_r"]
        if ceiling is not None:
            row["ceiling"] = float(ceiling[chosen].mean())
            good = chosen & (ceiling > min_ceiling)
            row["normalised_r"] = _mean(leading[:, good] / ceiling[good]) if good.any() else None
        if best is not None:
            there = np.asarray(np.isfinite(leading).all(axis=1))
            own = best[there] if len(best) == len(there) else best
            reachable = metrics.fisher_mean(own[:, chosen])
            known = reachable > SMALLEST_BEST
            row["best_r"] = reachable
            row["share_of_best"] = row[f"{_leading(maps)}_r"] / reachable if known else None
        rows.append(row)
    return rows


def is_drawn(key: str) -> bool:
    """Whether a map is written in the space of the scans, for others to look at."""
    return key == "ceiling" or key.startswith((PRODUCT, UNIQUE, *(f"{name}_" for name in MAIN)))


def _mean(values: NDArray[np.float64]) -> float:
    return float(np.nanmean(values))


def _leading(maps: Maps) -> str:
    """Return the predictor that is held against ceilings: the network, where there is one."""
    return "model" if "model_r" in maps else "ridge"


def add_intervals(rows: Sequence[dict[str, Any]], draws: Draws) -> None:
    """Add to each region's row the intervals of all predictors, and of their differences."""
    scores = {name: draws.over_all(name) for name in draws.z}
    for number, row in enumerate(rows):
        for name in scores:
            row[f"{name}_r_interval"] = interval(scores[name][:, number])
        own = [(key, a, b) for key, a, b in DIFFERENCES if a in scores]
        parts = [name for name in scores if name.startswith(WITHOUT)]
        own += [(f"{UNIQUE}{name.removeprefix(WITHOUT)}", "ridge", name) for name in parts]
        for key, more, less in own:
            difference = scores[more][:, number] - scores[less][:, number]
            row[key] = round(float(difference[0]), DIGITS)
            row[f"{key}_interval"] = interval(difference)
        if "difference" in row:
            row["verdict"] = verdict(row["difference_interval"])


def add_chance(
    rows: Sequence[dict[str, Any]],
    found: Mapping[str, Chance],
    members: Mapping[str, NDArray[np.bool_]],
) -> None:
    """Add to each region's row p, r by chance, and the share of voxels above chance."""
    for name, chance in found.items():
        passed, above = chance.significant(), chance.r > chance.largest
        for number, (row, chosen) in enumerate(zip(rows, members.values(), strict=True)):
            p, by_chance = chance.of_region(number)
            row[f"{name}_p"] = p
            row[f"{name}_chance"] = round(by_chance, DIGITS)
            row[f"{name}_significant"] = float(passed[chosen].mean())
            row[f"{name}_above_largest"] = float(above[chosen].mean())


def subject_rows(draws: Draws, subjects: Sequence[str]) -> list[dict[str, Any]]:
    """Return each subject's scores over all voxels, with intervals over blocks of TRs."""
    rows = []
    used = [name for name in MAIN if name in draws.z]
    for number, subject in enumerate(subjects):
        row: dict[str, Any] = {"subject": subject}
        scores = {name: draws.of_subject(name, number)[:, 0] for name in used}
        for name, values in scores.items():
            row[f"{name}_r"], row[f"{name}_r_interval"] = float(values[0]), interval(values)
        for key, more, less in DIFFERENCES:
            if more in scores:
                difference = scores[more] - scores[less]
                row[key] = round(float(difference[0]), DIGITS)
                row[f"{key}_interval"] = interval(difference)
        rows.append(row)
    return rows


def in_words(row: Mapping[str, Any]) -> str:
    """Say how the predictors stand against each other, and against chance."""
    said = [_linear_alone(row)] if "model_r" not in row else [_against_ridge(row)]
    if seeds := [row[key] for key in row if key.startswith(SEED) and key.endswith("_r")]:
        said.append(f"Its {len(seeds)} seeds alone reach {min(seeds):.3f} to {max(seeds):.3f}.")
    if "gain" in row:
        said.append(_together(row))
    if "ridge_p" in row and "model_p" not in row:
        said.append(f"By chance ridge reaches {row['ridge_chance']:.3f} (p {row['ridge_p']:.3f}).")
    elif "model_p" in row:
        said.append(
            f"By chance the network reaches {row['model_chance']:.3f} (p {row['model_p']:.3f})."
        )
    return " ".join(said)


def _linear_alone(row: Mapping[str, Any]) -> str:
    return f"Ridge alone: mean r {with_interval(row, 'ridge_r')}."


def _against_ridge(row: Mapping[str, Any]) -> str:
    model, ridge = with_interval(row, "model_r"), with_interval(row, "ridge_r")
    said = row.get("verdict", "")
    if said == "better":
        return f"The network (mean r {model}) is better than ridge ({ridge})."
    if said == "worse":
        return (
            f"Ridge (mean r {ridge}) is better than the network ({model}): for prediction alone, "
            "the linear model is the one to use."
        )
    if said:
        return (
            f"The network (mean r {model}) and ridge ({ridge}) cannot be told apart: their "
            f"difference is {_signed(row, 'difference')}."
        )
    return f"Mean r of the network {model}, of ridge {ridge}: too few test TRs to tell them apart."


def _together(row: Mapping[str, Any]) -> str:
    both, gain = with_interval(row, "combined_r"), _signed(row, "gain")
    found = verdict(row["gain_interval"])
    if not any(row["gain_interval"]):
        return "Their combination is ridge alone: every gate is 0."
    if found == "undecided":
        return (
            f"Together (mean r {both}) they cannot be told from ridge alone: their difference is "
            f"{gain}."
        )
    return f"Together (mean r {both}) they are {found} than ridge alone, by {gain}."


def with_interval(row: Mapping[str, Any], key: str) -> str:
    """Return a score with its interval, where it has one."""
    ends = row.get(f"{key}_interval")
    return f"{row[key]:.3f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")


def _signed(row: Mapping[str, Any], key: str) -> str:
    low, high = row[f"{key}_interval"]
    return f"{row[key]:+.3f} [{low:+.3f}, {high:+.3f}]"
