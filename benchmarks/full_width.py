"""Training's start, and evaluation, of a study at full width: anonymous memory and time by phase.

    python benchmarks/full_width.py [--subjects 17] [--voxels 85000] [--trs 1000] [--folder /tmp]
    torchrun --nproc-per-node 2 benchmarks/full_width.py

Random scans, made on the fly, on disk as a study is that memory cannot hold; vectors in the place
of films. Files that are mapped do not count: the kernel gives their pages back when asked. Run it
under `prlimit --data=4000000000` to be sure of the limit.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from giblet_hpc.config import io
from giblet_hpc.evaluation import bootstrap, chance, matching, scores
from giblet_hpc.evaluation.baselines import Baselines
from giblet_hpc.evaluation.prediction import predict_test
from giblet_hpc.evaluation.reconstruction import write_decoded
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.scans.tables import Columns
from giblet_hpc.splits import Block, Fold
from giblet_hpc.training import statistics
from giblet_hpc.training.feed import RunArrays, StudyArrays
from giblet_hpc.training.loop import Trainer
from giblet_hpc.training.node_memory import NodeMemory
from giblet_hpc.training.strategy import DataParallel
from giblet_hpc.training.validation import validate
from giblet_hpc.training.windows import covering_windows
from giblet_hpc.training.world import World

RANK, RANKS = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
WORLD = World(RANK, RANK, RANKS, torch.device("cpu"), RANKS)
CONFIG = Path(__file__).parents[1] / "configs" / "sherlock_production.yaml"


class Peak:
    """The most anonymous memory of each phase."""

    def __init__(self) -> None:
        self.phases: dict[str, dict[str, float]] = {}
        self._most = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self._most = max(self._most, self.now())
            time.sleep(0.02)

    @staticmethod
    def now() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

    def phase(self, name: str, work: Any) -> Any:
        before, self._most = self.now(), 0
        started = time.perf_counter()
        result = work()
        self.phases[name] = {
            "seconds": round(time.perf_counter() - started, 1),
            "peak_gib": round(max(self._most, self.now()) / 2**30, 2),
            "before_gib": round(before / 2**30, 2),
        }
        sys.stderr.write(f"{name}: {self.phases[name]}\n")
        return result


def study_of(given: argparse.Namespace) -> StudyArrays:
    memory, random = NodeMemory(WORLD, given.folder), np.random.default_rng(0)

    def scans(out: np.ndarray) -> None:
        for subject in out:
            for start in range(0, len(subject), 100):
                random.standard_normal(out=subject[start : start + 100], dtype=np.float32)

    runs = {}
    for name, trs in (("run1", given.training), ("run2", given.trs)):
        bold = memory.array(name, (given.subjects, trs, given.voxels), "float32", scans)
        text = random.standard_normal((trs, 1024), dtype=np.float32)
        runs[name] = RunArrays({"text": text}, bold, np.ones((given.subjects, trs), bool))
    names = tuple(str(number) for number in range(given.subjects))
    mask = np.ones(given.voxels, bool)
    return StudyArrays(runs, names, mask, Columns(mask.size), {})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=17)
    parser.add_argument("--voxels", type=int, default=85_000)
    parser.add_argument("--trs", type=int, default=1000, help="of the test run")
    parser.add_argument("--training", type=int, default=500)
    parser.add_argument("--windows", type=int, default=4, help="of 32 TRs, in a step")
    parser.add_argument("--regions", type=int, default=400)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    return parser.parse_args()


def main() -> None:
    given = arguments()
    if RANKS > 1:
        torch.distributed.init_process_group("gloo")
    peak, strategy = Peak(), DataParallel(WORLD)
    config = io.load(CONFIG, ["features.video=null", "features.audio=null", "train.epochs=1",
                              "features.text.segments=1", "evaluate.ridge.components=50",
                              f"train.batch_windows={given.windows}"])  # fmt: skip
    half = given.training * 9 // 10
    training, validation = Block("run1", 0, half), Block("run1", half, given.training)
    fold = Fold("", (training,), (validation,), (Block("run2", 0, given.trs),))
    study = peak.phase("making the study", lambda: study_of(given))
    modalities = modalities_of(config.features)
    found = peak.phase("statistics", lambda: statistics.fit(modalities, study, fold.train, WORLD))
    with tempfile.TemporaryDirectory(dir=given.folder) as own:
        name = WORLD.broadcast(own)
        paths = RunPaths(Path(name) / "run")
        if WORLD.is_main:
            paths.create(config)
            for file in (paths.inputs, paths.split):
                file.write_text("{}")
        WORLD.wait()
        steps = iter(range(1, 100))
        trainer = peak.phase("training, from its start: model", lambda: Trainer(
            config, paths, fold, study=study, statistics=found, strategy=strategy,
            should_stop=lambda: next(steps) == 3,
        ))  # fmt: skip
        weights = sum(p.numel() for p in trainer.model.parameters())
        peak.phase("training, three steps and a checkpoint", trainer.run)
        predictor, losses = trainer.predictor, trainer.losses
        peak.phase("validation", lambda: validate(
            predictor, losses, covering_windows(fold.validation, 32),
            runs=list(study.runs), strategy=strategy,
        ))  # fmt: skip
        del trainer
        predictor.model.eval()
        folder = Path(name)
        peak.phase("predictions", lambda: predict_test(predictor, fold.test, folder, WORLD))
        peak.phase("ridge and a control", lambda: Baselines(
            config, study, predictor.modalities, fold, world=WORLD,
        ).write(folder))  # fmt: skip
        made = {n: np.load(folder / f"{f}.npy", mmap_mode="r")
                for n, f in (("model", "predictions"), ("ridge", "ridge"))}  # fmt: skip
        members = np.arange(given.voxels) % given.regions == np.arange(given.regions)[:, None]
        everyone = range(given.subjects)
        peak.phase("intervals, 1,000 draws", lambda: bootstrap.draw_scores(
            study, fold.test, made, members, length=20, count=1000, world=WORLD,
        ))  # fmt: skip
        peak.phase("chance, 1,000 shifts", lambda: chance.score_chance(
            study, fold.test, made, members, count=1000, world=WORLD, scored=everyone,
        ))  # fmt: skip
        peak.phase("matching", lambda: matching.match_scans(
            study, fold.test, made, tr=1.5, scored=everyone, world=WORLD,
        ))  # fmt: skip
        peak.phase("decoding from scans", lambda: write_decoded(
            predictor, fold, study, folder, WORLD,
        ))  # fmt: skip
        maps = peak.phase("scores", lambda: scores.score_maps(study, fold.test, made, WORLD))
        peak.phase("ceiling", lambda: scores.ceiling_map(study, fold.test, WORLD, group_mean=False))
        WORLD.wait()
    text = {"weights": weights, "ridge_r": float(maps["ridge_r"].mean()), **peak.phases}
    given.folder = str(given.folder)
    if WORLD.is_main:
        sys.stdout.write(json.dumps({**vars(given), **text}, indent=1) + "\n")


if __name__ == "__main__":
    main()
