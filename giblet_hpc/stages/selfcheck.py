"""What an image checks of itself: `python -m giblet_hpc.stages.selfcheck`.

Run by Apptainer's `%test`, by `giblet-hpc image check` and by the doctor. It needs no GPU; what it
could not look at without one it names.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import site
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import torch
from transformers.utils import cached_file

from giblet_hpc.runs.environment import GPUS
from giblet_hpc.stages import WEIGHTS

IMAGE_ROOT = Path("/opt/giblet")
PACKAGES = (
    "av", "h5py", "himalaya", "jinja2", "matplotlib", "moten", "nibabel", "nilearn", "numpy",
    "openpyxl", "pandas", "praatio", "pysubs2", "scipy", "sklearn", "submitit", "tensorboard",
    "transformers", "zarr",
)  # fmt: skip
OUR_OWN = ("giblet_hpc.cli", "giblet_hpc.stages.preprocess", "giblet_hpc.stages.train",
           "giblet_hpc.stages.evaluate", "giblet_hpc.stages.torchrun")  # fmt: skip


class CheckError(Exception):
    """Something about the image is wrong."""


def packages() -> str:
    """Import everything, from the image alone."""
    for name in (*PACKAGES, *OUR_OWN):
        module = importlib.import_module(name)
        place = Path(module.__file__ or "")
        if IMAGE_ROOT.exists() and not place.is_relative_to(sys.prefix):
            raise CheckError(f"{name} comes from {place}, not from {sys.prefix}")
    return f"{len(PACKAGES) + len(OUR_OWN)} packages from {sys.prefix}"


def isolation() -> str:
    """Nothing of the user's own may be importable."""
    if not IMAGE_ROOT.exists():
        return "skipped: not in an image"
    user = site.getusersitepackages()
    foreign = [
        path for path in sys.path
        if path and (path == user or not path.startswith((sys.prefix, sys.base_prefix)))
        and Path(path).exists() and path != str(Path.cwd())
    ]  # fmt: skip
    if foreign:
        raise CheckError(f"the host's packages leak in: {', '.join(foreign)}")
    return "sys.path holds the image's folders only"


def arithmetic() -> str:
    """The CPU's arithmetic, which also shows that torch's libraries load."""
    values = torch.arange(6.0).reshape(2, 3)
    if (values @ values.T).tolist() != [[5.0, 14.0], [14.0, 50.0]]:
        raise CheckError("a matrix product is wrong")
    return f"torch {torch.__version__}"


def processes() -> str:
    """What training between processes needs."""
    if not torch.distributed.is_gloo_available():
        raise CheckError("torch has no gloo")
    if torch.version.cuda is None:
        return "gloo; no NCCL: this torch is without CUDA"
    if not torch.distributed.is_nccl_available():
        raise CheckError("torch has CUDA, but no NCCL")
    version = ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
    return f"gloo and NCCL {version}"


def verbs() -> str:
    """NCCL reaches InfiniBand through libibverbs, and says nothing when it is missing."""
    try:
        ctypes.CDLL("libibverbs.so.1")
    except OSError as error:
        raise CheckError(f"libibverbs cannot be loaded: {error}") from error
    if not any(Path("/usr/lib").glob("*/libibverbs/libmlx5*")):
        raise CheckError("libibverbs has no providers: NCCL would use sockets on InfiniBand")
    return "libibverbs with providers"


def codec() -> str:
    """The second EnCodec backend, which needs a torch with CUDA."""
    if torch.version.cuda is None:
        return "skipped: the encodec package needs a torch with CUDA"
    importlib.import_module("encodec")
    return f"encodec {metadata.version('encodec')}"


def weights(folder: Path = WEIGHTS) -> str:
    """Models that the image carries have to be found by their names, without internet."""
    names = [path.name.removeprefix("models--") for path in sorted(folder.glob("models--*"))]
    if not names:
        return "skipped: the image carries no weights"
    for name in (name.replace("--", "/", 1) for name in names):
        try:
            found = Path(cached_file(name, "config.json", cache_dir=folder, local_files_only=True))
        except OSError as error:
            raise CheckError(f"{name} is not found by its name: is refs/main there?") from error
        if broken := [file.name for file in found.parent.iterdir() if not file.exists()]:
            raise CheckError(f"{name}: files are missing: {', '.join(broken)}")
    return f"{len(names)} models in {folder}"


def gpu() -> str:
    """A product on the GPU, where there is one."""
    given = int(os.environ.get(GPUS, "0"))
    if given and not torch.cuda.is_available():
        raise CheckError(f"the job has {given} GPUs on this node, and none is visible inside")
    if torch.version.cuda is None:
        return "skipped: this torch is without CUDA"
    if not torch.cuda.is_available():
        return "skipped: no GPU is visible here"
    values = torch.eye(64, device="cuda", dtype=torch.bfloat16)
    if not bool(((values @ values) == values).all()):
        raise CheckError("a matrix product on the GPU is wrong")
    return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"


CHECKS: tuple[Callable[[], str], ...] = (
    packages, isolation, arithmetic, processes, verbs, codec, weights, gpu,
)  # fmt: skip


def results() -> Iterator[tuple[str, bool, str]]:
    """Yield each check's name, whether it holds, and what was seen."""
    for check in CHECKS:
        try:
            yield check.__name__, True, check()
        except (CheckError, ImportError, OSError, RuntimeError) as error:
            yield check.__name__, False, str(error)


def main() -> int:
    """Print all checks; return 1 when one fails."""
    good = True
    for name, holds, seen in results():
        good = good and holds
        sys.stdout.write(f"{'ok  ' if holds else 'FAIL'} {name}: {seen}\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
