"""Puts an evaluated run's network, decoder and scans together, and silences parts of them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import ConfigError, DataError
from giblet_hpc.evaluation import lesion_page, lesions, reconstruction
from giblet_hpc.evaluation.decoding import Decoder, bottleneck, load_decoder
from giblet_hpc.evaluation.fold import labels_of
from giblet_hpc.evaluation.lesions import Effects, Lesion, Silencing, blocks_of
from giblet_hpc.evaluation.look import choose_windows
from giblet_hpc.evaluation.scores import ALL, members_of
from giblet_hpc.files import read_json, require_file
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.scans.recordings import hemisphere_files, open_recording
from giblet_hpc.splits import load_folds, outer_folds
from giblet_hpc.stages.with_checkpoint import Loaded, with_checkpoint
from giblet_hpc.store import FeatureStore
from giblet_hpc.training.windows import Window
from giblet_hpc.training.world import World


@dataclass(frozen=True)
class Wanted:
    """What is to be silenced: regions, voxels or units; by default each region.

    Parameters
    ----------
    regions : tuple of str
        Names of regions of the atlas.
    voxels : Path, optional
        An image or table of the study's space; what is above 0 is silent.
    units : str
        Of the bottleneck, such as `0,5,8-20`.
    random : int
        Random lesions of the same size.
    windows : int
        Of the test TRs.
    shown : int
        How many of these are written as films, sounds and words.
    """

    regions: tuple[str, ...] = ()
    voxels: Path | None = None
    units: str = ""
    random: int = 50
    windows: int = 8
    shown: int = 2

    @property
    def named(self) -> bool:
        """Whether it is said what is to be silent."""
        return bool(self.regions or self.voxels or self.units)


def lesion_run(
    config: RunConfig,
    paths: RunPaths,
    wanted: Wanted,
    *,
    fold: str,
    device: str,
    folder: Path | None,
    note: Callable[[str], None],
) -> tuple[Path, dict[str, Any]]:
    """Silence parts of an evaluated run's scans or network; write what becomes of the stimulus.

    Parameters
    ----------
    config : RunConfig
    paths : RunPaths
        Of an evaluated run.
    wanted : Wanted
    fold : str
        By default the first.
    device : str
    folder : Path, optional
        By default one in the run's folder.
    note : callable
        Called with the name of each lesion that is done.

    Returns
    -------
    Path
    dict
        ``lesions``: rows of `giblet_hpc.evaluation.lesions.table`; how they were made.

    Raises
    ------
    ConfigError
        When the run has no decoder, or there is no such region, unit or device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("this machine has no GPU that torch can use", hint="--device cpu")
    name = _fold_name(paths, fold) if paths.split.is_file() else fold
    made = paths.evaluation / name
    if not all((made / file).is_file() for file in (reconstruction.DECODER, "fold.json")):
        raise ConfigError(
            f"run {paths.name} has no decoder: that is made when a network with evaluate.decode is "
            "scored",
            hint=f"giblet-hpc submit evaluate --name {paths.name}",
        )
    step = read_json(made / "fold.json")["step"]
    loaded = with_checkpoint(
        config, paths, step=step, fold=name, device=torch.device(device), in_memory=True
    )
    # With what is chosen for the fold, where something is.
    config = loaded.predictor.config
    work = _Work(config, loaded, load_decoder(made / reconstruction.DECODER), wanted)
    target = folder or paths.root / "lesions" / name / work.title
    if folder is None and target.exists():
        shutil.rmtree(target)
    rows, examples = [], []
    for number, lesion in enumerate(work.lesions):
        found, silent = work.effects(lesion)
        rows += found
        examples.append((f"without-{number + 1}", lesion.name, silent))
        note(lesion.name)
    record = {
        "run": paths.name, "fold": loaded.fold.name, "step": loaded.step, "of": work.kind,
        "random": wanted.random, "trs": sum(block.trs for block in work.blocks),
        "penalty": work.decoder.penalty, "lesions": rows,
    }  # fmt: skip
    lesion_page.write(
        target, record, work.windows[: wanted.shown], work.intact, examples,
        predictor=loaded.predictor, captions=_captions(config, loaded),
    )  # fmt: skip
    return target, record


class _Work:
    """The lesions that are wanted, and what is decoded with them.

    Parameters
    ----------
    config : RunConfig
    loaded : Loaded
    decoder : Decoder
    wanted : Wanted
    """

    def __init__(self, config: RunConfig, loaded: Loaded, decoder: Decoder, wanted: Wanted) -> None:
        self._config, self._loaded, self._wanted = config, loaded, wanted
        self.decoder = decoder
        self._world = World(0, 0, 1, loaded.predictor.device)
        length = config.train.window_trs
        self.windows: Sequence[Window] = choose_windows(loaded.fold.test, length, wanted.windows)
        self.blocks = blocks_of(self.windows, length)
        self.kind = "units" if wanted.units else "voxels"
        self.lesions = self._asked()
        asked = "-".join(one.name for one in self.lesions)
        self.title = "regions" if not wanted.named else re.sub(r"[^A-Za-z0-9_.-]+", "-", asked)[:80]
        self._silencing = None
        if wanted.units:
            made = bottleneck(loaded.predictor, self.blocks, self._world)
            self.intact = made.astype(np.float32)
        else:
            self._silencing = Silencing(
                loaded.study, decoder, self.windows, trs=length, world=self._world
            )
            self.intact = self._silencing.intact

    def _asked(self) -> list[Lesion]:
        """Return the lesions that are asked for."""
        wanted, study = self._wanted, self._loaded.study
        if wanted.units:
            size = self._config.model.bottleneck
            return [Lesion(f"units {wanted.units}", units_of(wanted.units, size))]
        if wanted.voxels is not None:
            return [Lesion(wanted.voxels.name, _voxels_of(wanted.voxels, self._loaded))]
        members = members_of(*labels_of(self._config), study.voxels)
        known = [name for name in members if name != ALL]
        if not known:
            raise ConfigError(
                "there are no regions to silence: the study has no atlas (bold.regions)",
                hint="--voxels FILE, or --units 0-9",
            )
        if missing := [name for name in wanted.regions if name not in known]:
            raise ConfigError(
                f"there is no region {', '.join(missing)}", hint=f"there are: {', '.join(known)}"
            )
        return [Lesion(name, members[name]) for name in wanted.regions or known]

    def effects(self, lesion: Lesion) -> tuple[list[dict[str, Any]], NDArray[np.float32]]:
        """Return a lesion's rows, and what is decoded with it, (trs, Z)."""
        if not 0 < lesion.size < len(lesion.places):
            raise DataError(
                f"{lesion.name}: {lesion.size} of {len(lesion.places)} cannot be silent"
            )
        places = lesion.random(self._wanted.random, seed=self._config.train.seed)
        sets = np.concatenate([lesion.places[None], places])
        if self._silencing is not None:
            silent = self._silencing(sets)
        else:
            silent = lesions.silent_units(self.intact, self.decoder.mean, sets)
        intact, own = Effects(self._loaded.predictor, self.windows).of(self.intact, silent)
        if self._silencing is None:
            self._add_scans(intact, own, sets)
        return lesions.table(lesion, intact, own[0], own[1:]), silent[0]

    def _add_scans(
        self,
        intact: dict[str, dict[str, float]],
        own: Sequence[dict[str, dict[str, float]]],
        sets: NDArray[np.bool_],
    ) -> None:
        """Add what silent units do to the predicted scans of each region."""
        members = members_of(*labels_of(self._config), self._loaded.study.voxels)
        moved = lesions.moved_scans(
            self._loaded.predictor, self.windows, self.decoder.mean, sets, members
        )
        intact |= {f"scans of {region}": {} for region in members}
        for figures, found in zip(own, moved, strict=True):
            figures |= {f"scans of {region}": {"moved": value} for region, value in found.items()}


def _fold_name(paths: RunPaths, fold: str) -> str:
    """Return the name of a fold that is scored, by default the first.

    Raises
    ------
    ConfigError
        When there is none of that name.
    """
    known = [one.name for one in outer_folds(load_folds(paths.split))]
    if fold and fold not in known:
        raise ConfigError(f"there is no fold {fold}", hint=f"there are: {', '.join(known)}")
    return fold or known[0]


def units_of(text: str, size: int) -> NDArray[np.bool_]:
    """Return which of ``size`` units a text such as `0,5,8-20` names.

    Raises
    ------
    ConfigError
        When it names none, or one that there is not.
    """
    found = np.zeros(size, bool)
    for part in text.replace(" ", "").split(","):
        first, _, last = part.partition("-")
        if not (first.isdecimal() and (last or first).isdecimal()):
            raise ConfigError(f"--units {text}: {part!r} is no number", hint="such as 0,5,8-20")
        start, stop = int(first), int(last or first)
        if not start <= stop < size:
            raise ConfigError(f"--units {part}: there are units 0 to {size - 1}")
        found[start : stop + 1] = True
    return found


def _voxels_of(file: Path, loaded: Loaded) -> NDArray[np.bool_]:
    """Return which of the study's voxels a file marks."""
    files = hemisphere_files(Path(), str(file))
    for one in files:
        require_file(one, what="file of voxels")
    known = open_recording(files)
    loaded.study.space.check(files[0], known.space)
    return np.asarray(known.rows(slice(0, 1))[0, loaded.study.mask] > 0)


def _captions(config: RunConfig, loaded: Loaded) -> Mapping[str, Mapping[str, list[str]]]:
    """Return what is said of each TR, by modality and run, where something is."""
    assert config.study.store is not None
    store = FeatureStore(config.study.store)
    found: dict[str, dict[str, list[str]]] = {}
    for name, modality in loaded.predictor.reconstructed.items():
        for run in loaded.study.runs:
            said = modality.captions(store.array(modality.array_name(run)))
            if said:
                found.setdefault(name, {})[run] = said
    return found
