"""Choose settings of the text-to-BOLD network inside the training run alone, then test once.

    python benchmarks/choose_inside.py STUDY-FOLDER WORK-FOLDER

For each direction, every setting of a small grid is trained on two thirds of the training run and
scored on the last third; the best one is then trained on the whole training run and scored, once,
on the other run. No figure of the test run is looked at before.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

CONFIG = Path(__file__).parents[1] / "configs" / "sherlock_pmc_text.yaml"
GRID = {
    "loss.map_penalty": ["1", "10", "100"],
    "loss.correlation_weight": ["0", "0.5", "1"],
}


def giblet(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "giblet_hpc.cli", *arguments],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def main() -> None:
    study, work = (Path(argument).resolve() for argument in sys.argv[1:])
    runs = work / "runs"
    common = [f"study.root={study}", f"study.store={work / 'store.zarr'}"]
    found: dict[str, list[tuple[float, int]]] = {}
    settings = [
        [f"{field}={value}" for field, value in zip(GRID, values, strict=True)]
        for values in itertools.product(*GRID.values())
    ]
    for number, chosen in enumerate(settings):
        options = [*common, *chosen, "split.validation_fraction=0.33"]
        sets = [part for option in options for part in ("--set", option)]
        name = f"inner-{number}"
        giblet("run", "preprocess", name, "--config", str(CONFIG), "--runs", str(runs), *sets)
        giblet("run", "train", name, "--runs", str(runs))
        for file in sorted((runs / name).glob("metrics-*.jsonl")):
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            last = [row for row in rows if row["kind"] == "validation"][-1]
            found.setdefault(file.stem.removeprefix("metrics-"), []).append((last["r"], number))
            inside = f"r inside the training run {last['r']:.3f}"
            sys.stdout.write(" ".join([file.stem, *chosen, inside]) + "\n")
            sys.stdout.flush()
    for fold, scored in found.items():
        best = max(scored)[1]
        sets = [part for option in [*common, *settings[best]] for part in ("--set", option)]
        name = f"final-{fold}"
        giblet("submit", "pipeline", "--name", name, "--config", str(CONFIG), "--runs", str(runs),
               "--cluster", "local", "--wait", *sets)  # fmt: skip
        for row in json.loads((runs / name / "evaluation" / "scores.json").read_text()):
            if row["fold"] == fold:
                everything = row["rows"][0]
                scores = f"model {everything['model_r']:.3f} ridge {everything['ridge_r']:.3f}"
                sys.stdout.write(" ".join([row["title"], *settings[best], scores]) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
