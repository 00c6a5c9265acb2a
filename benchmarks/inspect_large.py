"""Time and memory of `giblet-hpc inspect data` and `inspect checkpoint` on large files.

    python benchmarks/inspect_large.py [--gigabytes 20] [--checkpoint 10] [--folder /tmp]

Writes a store of 17 subjects x 85,000 voxels with films of 10 frames of 90 x 160, and a checkpoint
of the dense network, of the sizes that are asked for; then runs the commands as a user does, each
in a process of its own whose largest resident memory is read at its end.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from giblet_hpc.arrays import ArraySpec
from giblet_hpc.config import io
from giblet_hpc.files import read_json, write_json
from giblet_hpc.plans import study_size
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.splits import Block, Fold, save_folds
from giblet_hpc.store import FeatureStore
from giblet_hpc.training import checkpoint
from giblet_hpc.training.network_size import meta_model
from giblet_hpc.training.pieces import whole
from giblet_hpc.training.world import World

CONFIG = Path(__file__).parents[1] / "configs" / "sherlock_dense.yaml"
SUBJECTS = [str(number) for number in range(1, 18)]
VOXELS = 85_000
ROWS = {"video": ((10, 90, 160, 3), "uint8"), "audio": ((8, 112), "int16"),
        "text": ((3072,), "float32")}  # fmt: skip
TR_BYTES = 10 * 90 * 160 * 3 + 17 * VOXELS * 4


def fill(store: FeatureStore, spec: ArraySpec, random: np.random.Generator) -> None:
    """Write random rows, a shard at a time."""
    for shard in store.missing(spec):
        rows = spec.rows(shard)
        shape = (rows.stop - rows.start, *spec.shape[1:])
        if spec.dtype == "uint8":
            values = random.integers(0, 256, shape, dtype=np.uint8)
        elif spec.dtype == "int16":
            values = random.integers(0, 1024, shape, dtype=np.int16)
        else:
            values = random.standard_normal(shape, dtype=np.float32)
        store.write_shard(spec, shard, values)


def make_run(folder: Path, gigabytes: float, width: float) -> RunPaths:
    """Write a run whose preprocess is complete."""
    trs = int(gigabytes * 1e9 / TR_BYTES / 2)
    config = io.load(CONFIG, [f"study.store={folder / 'store.zarr'}", f"model.width={width}"])
    paths = RunPaths(folder / "runs" / "large")
    paths.create(config)
    random = np.random.default_rng(0)
    store = FeatureStore(folder / "store.zarr")
    specs = [ArraySpec("mask", (1, 1, VOXELS), "uint8", {}, {"affine": np.eye(4).tolist()})]
    for run in ("run1", "run2"):
        specs += [ArraySpec(f"stimulus/{run}/{n}", (trs, *s), d) for n, (s, d) in ROWS.items()]
        for name in SUBJECTS:
            specs += [ArraySpec(f"bold/{name}/{run}", (trs, VOXELS), "float32"),
                      ArraySpec(f"valid/{name}/{run}", (trs,), "uint8"),
                      ArraySpec(f"stats/{name}/{run}", (2, VOXELS), "float32")]  # fmt: skip
    store.plan(specs)
    for spec in specs:
        if spec.name.startswith(("mask", "valid")):
            store.write(spec, np.ones(spec.shape, np.uint8))
        else:
            fill(store, spec, random)
    write_json(paths.inputs, {
        "subjects": SUBJECTS,
        "arrays": {spec.name: spec.fingerprint for spec in specs},
        "content": {spec.name: store.content(spec.name) for spec in specs},
    })  # fmt: skip
    fold = Fold("", (Block("run1", 0, trs - 50),), (), (Block("run2", 0, trs),))
    save_folds([fold], paths.split, purge_trs=15)
    paths.update_state("preprocess", status="complete")
    return paths


def make_checkpoint(paths: RunPaths) -> float:
    """Write a checkpoint of the run's network with its moments; return its gigabytes."""
    config = paths.load_config()
    model = meta_model(config, study_size.of_store(config, read_json(paths.inputs)))
    tensors = {}
    for number, (name, parameter) in enumerate(model.named_parameters()):
        tensors[f"model/{name}"] = torch.randn(parameter.shape)
        for moment in ("exp_avg", "exp_avg_sq"):
            tensors[f"optimizer/{number}/{moment}"] = torch.rand(parameter.shape)
    alone = World(0, 0, 1, torch.device("cpu"))
    writer = checkpoint.Writer(paths.checkpoints(), alone, keep_last=2)
    writer.save(whole(tensors), {"step": 100}, best=False)
    writer.wait()
    return sum(values.nbytes for values in tensors.values()) / 1e9


def measured(runs: Path, *words: str) -> str:
    """Run a command; return its seconds and its largest resident memory."""
    child = os.fork()
    if child == 0:
        os.environ["GIBLET_RUNS"] = str(runs)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.execv(sys.executable, [sys.executable, "-m", "giblet_hpc.cli", *words])
    started = time.perf_counter()
    _, status, used = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return f"{time.perf_counter() - started:.1f} s, {used.ru_maxrss / 2**20:.2f} GiB, exit {code}"


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=20.0, help="of the store")
    parser.add_argument(
        "--width", type=float, default=0.45, help="of the network in the checkpoint"
    )
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=given.folder))
    try:
        paths = make_run(folder, given.gigabytes, given.width)
        if not os.fork():
            # In a process of its own, as it holds the whole checkpoint.
            say(f"checkpoint: {make_checkpoint(paths):.1f} GB")
            os._exit(0)
        os.wait()
        for what in ("data", "checkpoint", "model"):
            say(f"inspect {what}: {measured(paths.root.parent, 'inspect', what, 'large')}")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
