"""How long training waits for data: from node memory, the node's disk, and the store itself.

    python benchmarks/waiting.py [--trs 946] [--steps 30] [--places memory disk store]

Rows are those of the original: 10 frames of 90 x 160, codes, text, and 85,000 voxels of a subject:
786 KB; the dense network at 1/16 of its width, 16 TRs a step. Steps are CPU steps: on a GPU they
are shorter, and rows the same. Run it in a memory cgroup for a study that does not fit.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from giblet_hpc.arrays import ArraySpec
from giblet_hpc.config import io
from giblet_hpc.files import write_json
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.splits import Block, Fold
from giblet_hpc.store import FeatureStore
from giblet_hpc.training import statistics
from giblet_hpc.training.feed import load_study
from giblet_hpc.training.loop import Trainer
from giblet_hpc.training.node_memory import memory_for
from giblet_hpc.training.strategy import DataParallel
from giblet_hpc.training.world import World

WORLD = World(0, 0, 1, torch.device("cpu"))
CONFIG = Path(__file__).parents[1] / "configs" / "sherlock_dense.yaml"
VOXELS = 85_000


def make_store(store: FeatureStore, trs: int) -> int:
    """Write a study of one run; return its bytes."""
    rows = {
        "stimulus/run1/video": ((10, 90, 160, 3), "uint8"),
        "stimulus/run1/audio": ((8, 112), "int16"),
        "stimulus/run1/text": ((3072,), "float32"),
        "bold/01/run1": ((VOXELS,), "float32"),
        "valid/01/run1": ((), "uint8"),
    }
    random, total = np.random.default_rng(0), 0
    specs = [ArraySpec(n, (trs, *row), kind) for n, (row, kind) in rows.items()]
    about = {"affine": np.eye(4).tolist()}
    mask = ArraySpec("mask", (1, 1, VOXELS), "uint8", attributes=about)
    books = ArraySpec("shared/audio", (8, 1024, 128), "float32")
    store.plan([*specs, mask, books])
    store.write(mask, np.ones(mask.shape, np.uint8))
    store.write(books, random.standard_normal(books.shape).astype(np.float32))
    for spec in specs:
        for shard in range(spec.shards):
            here = spec.rows(shard)
            shape = (here.stop - here.start, *spec.shape[1:])
            values = random.integers(0, 250, shape, dtype=np.uint8).astype(spec.dtype)
            store.write_shard(spec, shard, values if "valid" not in spec.name else values * 0 + 1)
            total += values.nbytes
    return total


def waited(given: argparse.Namespace, folder: Path, place: str) -> dict[str, Any]:
    """Train some steps with rows from a place; return how long it waited for them."""
    config = io.load(CONFIG, [
        f"study.store={folder / 'store.zarr'}", "study.subjects=1", "bold.shifted_trs=0",
        "split.scheme=blocks", "bold.mode=per_subject", f"model.width={given.width}",
        "model.parallel=ddp", "train.batch_windows=16", "train.checkpoint_every=100000",
        "train.log_every=5",
        f"train.place={place}",
    ])  # fmt: skip
    study_config = config.study.model_copy(update={"runs": config.study.runs[:1]})
    config = config.model_copy(update={"study": study_config})
    inputs = {"subjects": ["01"], "arrays": {"shared/audio": ""}, "content": {}}
    names = [f"stimulus/run1/{n}" for n in ("video", "audio", "text")]
    store = FeatureStore(folder / "store.zarr")
    inputs["arrays"] = {n: store.array(n).fingerprint for n in [*names, "shared/audio"]}
    inputs["content"] = {n: store.content(n) for n in inputs["arrays"]}
    memory = memory_for(WORLD, 1, place)
    study = load_study(config, inputs, memory=memory)
    training, test = Block("run1", 0, given.trs - 20), Block("run1", given.trs - 10, given.trs)
    fold = Fold("", (training,), (), (test,))
    found = statistics.fit(modalities_of(config.features), study, fold.train, WORLD)
    paths = RunPaths(folder / place)
    paths.create(config)
    for file in (paths.inputs, paths.split):
        write_json(file, {})
    steps = iter(range(1, 10**6))
    trainer = Trainer(config, paths, fold, study=study, statistics=found,
                      strategy=DataParallel(WORLD),
                      should_stop=lambda: next(steps) == given.steps)  # fmt: skip
    trainer.run()
    return trainer.pace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trs", type=int, default=946)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--width", type=float, default=1 / 16)
    parser.add_argument("--places", nargs="+", default=["memory", "disk", "store"])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        size = make_store(FeatureStore(folder / "store.zarr"), given.trs)
        found = {place: waited(given, folder, place) for place in given.places}
    given.folder = str(given.folder)
    sys.stdout.write(json.dumps({**vars(given), "bytes": size, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
