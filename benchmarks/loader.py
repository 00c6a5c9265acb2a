"""How fast a study is read: whole arrays from the store, and batches of 16 rows, beside np.memmap.

    python benchmarks/loader.py [--trs 946] [--folder /tmp]

Rows are those of the original: 10 frames of 90 x 160, codes, text, and 85,000 voxels of a subject:
786 KB. Batches are random windows of one TR; memmap reads the same rows of .npy files.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from giblet_hpc.arrays import ArraySpec
from giblet_hpc.scans.tables import Columns
from giblet_hpc.splits import Block
from giblet_hpc.store import FeatureStore
from giblet_hpc.training.batches import WindowReader
from giblet_hpc.training.feed import RunArrays, StudyArrays
from giblet_hpc.training.node_memory import NodeMemory
from giblet_hpc.training.stored_rows import StoredRows, StoredScans
from giblet_hpc.training.windows import Window
from giblet_hpc.training.world import World

ALONE = World(0, 0, 1, torch.device("cpu"))
BATCHES, BATCH = 60, 16
ROWS = {
    "stimulus/run1/video": ((10, 90, 160, 3), "uint8"),
    "stimulus/run1/audio": ((8, 112), "int16"),
    "stimulus/run1/text": ((3072,), "float32"),
    "bold/01/run1": ((85_000,), "float32"),
}


def timed(work: Callable[[], Any], repeats: int = 5) -> float:
    """The median of some calls, in seconds."""
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return sorted(found)[len(found) // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trs", type=int, default=946)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    given = parser.parse_args()
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        store = FeatureStore(folder / "store.zarr")
        specs = [ArraySpec(n, (given.trs, *row), kind) for n, (row, kind) in ROWS.items()]
        store.plan(specs)
        writing, size, memmaps = 0.0, 0, {}
        for spec in specs:
            values = random.integers(0, 250, spec.shape, dtype=np.uint8).astype(spec.dtype)
            started = time.perf_counter()
            store.write(spec, values)
            writing, size = writing + time.perf_counter() - started, size + values.nbytes
            file = folder / f"{spec.name.replace('/', '-')}.npy"
            np.save(file, values)
            memmaps[spec.name] = np.load(file, mmap_mode="r")
        outs = {spec.name: np.empty(spec.shape, spec.dtype) for spec in specs}
        reading = timed(lambda: [store.read(n, out) for n, out in outs.items()])
        plain = timed(lambda: [zarr.open_array(store.path, path=n, mode="r")[:] for n in outs], 1)
        batches = [random.choice(given.trs, BATCH, replace=False) for _ in range(BATCHES)]
        block = Block("run1", 0, given.trs)
        windows = [[Window(block, int(tr)) for tr in batch] for batch in batches]
        rows = {}
        for place, disk in (("memory", None), ("disk", folder), ("store", None)):
            held: dict[str, Any] = {}
            for spec in specs:
                memory, fill = NodeMemory(ALONE, disk), partial(store.read, spec.name)
                held[spec.name] = (
                    memory.array(spec.name, spec.shape, spec.dtype, fill)
                    if place != "store"
                    else StoredRows(store, spec.name)
                )
            scans = held["bold/01/run1"]
            bold = (
                scans[None]
                if place != "store"
                else StoredScans(store, ["01"], "run1", shift=0, counts=None)
            )
            stimulus = {n.rpartition("/")[2]: v for n, v in held.items() if n[0] == "s"}
            run = RunArrays(stimulus, bold, np.ones((1, given.trs), bool))
            everywhere = np.ones(85_000, bool)
            study = StudyArrays({"run1": run}, ("01",), everywhere, Columns(85_000), {})
            read = WindowReader(study, {"run1": stimulus}, trs=1, context=0, device=ALONE.device)
            # As training does: into memory that is there.
            batch = read.place_for(BATCH, pinned=False)
            rows[place] = timed(lambda: [read.collect(w, batch) for w in windows])  # noqa: B023
        floor = timed(lambda: [[m[b] for m in memmaps.values()] for b in batches])
    rate = BATCHES * BATCH / floor
    found = {
        "megabytes": size / 1e6,
        "write_megabytes_per_second": size / 1e6 / writing,
        "verified_read_gigabytes_per_second": size / 1e9 / reading,
        "plain_zarr_read_gigabytes_per_second": size / 1e9 / plain,
        "memmap_rows_per_second": rate,
        **{f"{place}_of_memmap": floor / seconds for place, seconds in rows.items()},
    }
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
