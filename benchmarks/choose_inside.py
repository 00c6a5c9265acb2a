"""Choose the penalty of the text-to-BOLD network inside the training run alone, then test once.

    python benchmarks/choose_inside.py STUDY-FOLDER WORK-FOLDER

For each direction and each penalty, four seeds of the network predict five purged blocks of the
training run, each from the others (`split.inner_blocks`). The penalty with the highest mean r there
is taken, and the report's row of the other run is printed for it alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from giblet_hpc.evaluation.blocks import scans_of
from giblet_hpc.evaluation.metrics import fisher_mean, pearson, run_rows
from giblet_hpc.files import read_json
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.splits import Fold, load_folds, outer_folds
from giblet_hpc.training.feed import load_study

CONFIG = Path(__file__).parents[1] / "configs" / "sherlock_pmc_text.yaml"
PENALTIES = (3, 10, 30, 100, 300)
SHOWN = ("model_r", "ridge_r", "combined_r", "difference", "gain")


def giblet(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "giblet_hpc.cli", *arguments],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def inside(paths: RunPaths, fold: Fold, name: str) -> float:
    """Mean r over the blocks of a fold's training TRs that were predicted from the others."""
    study = load_study(paths.load_config(), read_json(paths.inputs), memory=None)
    blocks, scans, made = [], [], []
    for inner in load_folds(paths.split):
        if inner.within == fold.name:
            blocks += inner.test
            scans.append(scans_of(study, 0, inner.test, slice(None))[0])
            made.append(np.load(paths.evaluation / fold.name / inner.name / f"{name}.npy")[0])
    measured, predicted = np.concatenate(scans), np.concatenate(made)
    every = np.ones(len(measured), bool)
    return fisher_mean(pearson(predicted, measured, every, run_rows(blocks)))


def main() -> None:
    study, work = (Path(argument).resolve() for argument in sys.argv[1:])
    common = [f"study.root={study}", f"study.store={work / 'store.zarr'}", "train.seeds=4"]
    runs = {}
    for penalty in PENALTIES:
        settings = [*common, f"loss.map_penalty={penalty}"]
        giblet(
            "submit", "pipeline", "--config", str(CONFIG), "--name", f"penalty-{penalty}",
            "--runs", str(work / "runs"), "--cluster", "local", "--wait",
            *(part for one in settings for part in ("--set", one)),
        )  # fmt: skip
        runs[penalty] = RunPaths(work / "runs" / f"penalty-{penalty}")
    for fold in outer_folds(load_folds(runs[PENALTIES[0]].split)):
        found = {penalty: inside(paths, fold, "predictions") for penalty, paths in runs.items()}
        best = max(found, key=found.__getitem__)
        scores = next(one for one in read_json(runs[best].scores) if one["fold"] == fold.name)
        row = {key: scores["rows"][0].get(key) for key in SHOWN}
        inner = {str(penalty): round(r, 4) for penalty, r in found.items()}
        sys.stdout.write(json.dumps({"fold": fold.name, "inside": inner, "taken": best,
                                     "gate": scores["gate"], **row}) + "\n")  # fmt: skip


if __name__ == "__main__":
    main()
