"""What is measured while training goes on: a profile of some steps, and each GPU.

Profiles are of rank 0; GPUs are each rank's own, asked of nvidia-smi by a thread.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from giblet_hpc import nvidia_smi
from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import ConfigError
from giblet_hpc.files import TEMPORARY_MARK, read_json, write_text
from giblet_hpc.plans import study_size
from giblet_hpc.plans.hardware import GIB, gpu_of
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.training.network_size import network_of
from giblet_hpc.training.world import World

logger = logging.getLogger(__name__)
GPU_FIGURES = {
    "utilization.gpu": "percent_busy",
    "memory.used": "mib_used",
    "temperature.gpu": "celsius",
    "power.draw": "watts",
}
"""What nvidia-smi is asked, and the name of the figure."""
SAMPLE_SECONDS = 15.0
SMI_SECONDS = 10.0
ALLOCATIONS = 100_000
"""Allocations that a memory snapshot goes back."""
ROWS = 40
"""Operations in the table of a profile."""


class Instruments:
    """Measures a fold's training.

    Parameters
    ----------
    config : RunConfig
    paths : RunPaths
    fold : str
        Its name.
    world : World
    """

    def __init__(self, config: RunConfig, paths: RunPaths, fold: str, world: World) -> None:
        self._world, self._cuda = world, world.device.type == "cuda"
        self._profile = None
        if config.train.profile is not None and world.is_main:
            self._profile = ProfiledSteps(config.train.profile, paths.profile(fold), self._cuda)
        self._gpu = GpuSampler(_uuid(world.device)) if self._cuda else None
        self._operations = step_operations(config, paths) if self._cuda and world.is_main else 0.0

    def before(self, step: int) -> None:
        """Take note that a step begins."""
        if self._profile is not None:
            self._profile.before(step)

    def after(self, step: int) -> None:
        """Take note that a step has ended."""
        if self._profile is not None:
            self._profile.after(step)

    def close(self) -> None:
        """End what asks about the GPU."""
        if self._gpu is not None:
            self._gpu.close()

    def figures(self, step_seconds: float) -> dict[str, float]:
        """Return what was measured; of all GPUs. All ranks have to call.

        Parameters
        ----------
        step_seconds : float
            Of the last step.
        """
        if self._gpu is None:
            return {}
        everyone = self._world.gather(self._gpu.last)
        found = {
            f"gpu/{rank}/{name}": value
            for rank, figures in enumerate(everyone)
            for name, value in figures.items()
        }
        if self._operations:
            found |= utilisation(
                self._operations / (step_seconds * self._world.size),
                torch.cuda.get_device_name(self._world.device),
            )
        allocated = torch.cuda.max_memory_allocated(self._world.device)
        return {**found, "peak_gib_allocated": allocated / GIB}


def utilisation(operations: float, name: str) -> dict[str, float]:
    """Return what share of a GPU's arithmetic is used; nothing for one that is not known.

    Parameters
    ----------
    operations : float
        A second, on each GPU.
    name : str
        Of the GPU.
    """
    try:
        peak = gpu_of(name, None).tflops
    except ConfigError:
        return {}
    return {"model_flops_utilisation": operations / (peak * 1e12)}


def step_operations(config: RunConfig, paths: RunPaths) -> float:
    """Return the floating-point operations of a step, of all ranks together.

    Those of the forward pass, counted by torch on the meta device, and twice as many backward.
    """
    size = study_size.of_store(config, read_json(paths.inputs))
    return 3.0 * network_of(config, size).operations * config.train.batch_windows


def _uuid(device: torch.device) -> str:
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


class ProfiledSteps:
    """A profile of some steps, and on a GPU a snapshot of its memory.

    Parameters
    ----------
    steps : tuple of int
        The first, and the one after the last. A training that goes on from a step between them
        makes none.
    folder : Path
    cuda : bool
    """

    def __init__(self, steps: tuple[int, int], folder: Path, cuda: bool) -> None:
        self._first, self._stop = steps
        self._folder, self._cuda = folder, cuda
        self._running: profile | None = None

    def before(self, step: int) -> None:
        """Begin with the first step."""
        if step != self._first:
            return
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._cuda else [])]
        if self._cuda:
            torch.cuda.memory._record_memory_history(max_entries=ALLOCATIONS)
        self._running = profile(activities=kinds, profile_memory=True)
        self._running.start()

    def after(self, step: int) -> None:
        """Write what was seen, after the last step."""
        if self._running is None or step + 1 != self._stop:
            return
        running, self._running = self._running, None
        running.stop()
        self._folder.mkdir(parents=True, exist_ok=True)
        order = "self_device_time_total" if self._cuda else "self_cpu_time_total"
        table = running.key_averages().table(sort_by=order, row_limit=ROWS)
        name = f"steps-{self._first}-{self._stop - 1}"
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=TEMPORARY_MARK) as work:
            trace = Path(work) / "trace.json.gz"
            running.export_chrome_trace(str(trace))
            trace.replace(self._folder / f"{name}.json.gz")
            if self._cuda:
                snapshot = Path(work) / "memory.pickle"
                torch.cuda.memory._dump_snapshot(str(snapshot))  # type: ignore[no-untyped-call]
                torch.cuda.memory._record_memory_history(enabled=None)
                snapshot.replace(self._folder / f"{name}-memory.pickle")
        write_text(self._folder / f"{name}.txt", f"{table}\n")
        logger.info("profile of steps %d to %d: %s", self._first, self._stop - 1, self._folder)


class GpuSampler:
    """Asks nvidia-smi about one GPU now and then, in a thread.

    Parameters
    ----------
    uuid : str
        As nvidia-smi names it.
    """

    def __init__(self, uuid: str) -> None:
        self._uuid = uuid
        self.last: dict[str, float] = {}
        """The newest figures; empty where nvidia-smi does not answer."""
        self._end = threading.Event()
        threading.Thread(target=self._sample, daemon=True).start()

    def close(self) -> None:
        """End the thread."""
        self._end.set()

    def _sample(self) -> None:
        while True:
            self.last = gpu_figures(self._uuid)
            if self._end.wait(SAMPLE_SECONDS):
                return


def gpu_figures(uuid: str) -> dict[str, float]:
    """Return what nvidia-smi says of a GPU; empty where it says nothing."""
    rows = nvidia_smi.query(list(GPU_FIGURES), gpu=uuid, seconds=SMI_SECONDS)
    found = {}
    for name, cell in zip(GPU_FIGURES.values(), rows[0] if rows else (), strict=False):
        try:
            found[name] = float(cell)
        except ValueError:
            # Not every GPU has every sensor: `[N/A]`.
            continue
    return found
