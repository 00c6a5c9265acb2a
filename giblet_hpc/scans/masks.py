"""The brain mask: voted for by the subjects, or a file; and the regions in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.arrays import ArraySpec
from giblet_hpc.config.bold import Bold
from giblet_hpc.config.run import RunConfig
from giblet_hpc.digests import Digests, code_digest
from giblet_hpc.errors import DataError
from giblet_hpc.log import progress
from giblet_hpc.scans import volumes
from giblet_hpc.scans.files import subject_digests
from giblet_hpc.store import FeatureStore


def mask_array(
    config: RunConfig, subjects: Sequence[str], grid: volumes.Grid, digests: Digests
) -> ArraySpec:
    """Return the array of the brain mask, which the voxel count of all scans depends on."""
    bold = config.bold
    provenance: dict[str, Any] = {"code": code_digest(volumes, vote_mask)}
    if bold.mask == "vote":
        provenance["subjects"] = {name: subject_digests(config, name, digests) for name in subjects}
        names = ("vote_percentile", "vote_trs", "vote_threshold")
        provenance["bold"] = {name: getattr(bold, name) for name in names}
    else:
        provenance["mask"] = digests.of(config.study.root / bold.mask)
    attributes = {"affine": np.array(grid.affine).tolist()}
    return ArraySpec("mask", grid.shape, "uint8", provenance, attributes)


def write_mask(
    config: RunConfig,
    subjects: Sequence[str],
    grid: volumes.Grid,
    *,
    store: FeatureStore,
    spec: ArraySpec,
) -> NDArray[np.bool_]:
    """Write the mask when it is missing; return it.

    Raises
    ------
    DataError
        When it is empty.
    """
    if store.missing(spec):
        if config.bold.mask == "vote":
            votes = np.zeros(grid.shape, dtype=np.float32)
            for subject in progress(subjects, label="mask", total=len(subjects)):
                scans = volumes.open_scans(subject, config.study, config.bold)
                first = scans.volumes(config.study.runs[0].name)
                votes += vote_mask(first, config.bold)
            mask = votes / len(subjects) >= config.bold.vote_threshold
        else:
            mask = volumes.load_labels(config.study.root / config.bold.mask, grid) > 0
        if not mask.any():
            raise DataError("the brain mask is empty", hint="check bold.mask")
        store.write(spec, mask.astype(np.uint8))
    return store.read(spec.name).astype(bool)


def vote_mask(volumes: NDArray[np.float32], bold: Bold) -> NDArray[np.bool_]:
    """Return one subject's vote: voxels whose SD over time exceeds a percentile.

    Parameters
    ----------
    volumes : ndarray, shape (x, y, z, trs)
    bold : Bold
        Percentile of the non-zero SDs, and how many TRs count.
    """
    deviation = volumes[..., : bold.vote_trs].std(axis=3)
    moving = deviation[deviation > 0]
    if moving.size == 0:
        raise DataError("no voxel varies over time: these are not scans")
    return np.asarray(deviation > np.percentile(moving, bold.vote_percentile))


def regions_array(
    config: RunConfig, digests: Digests, *, mask: ArraySpec, voxels: int
) -> ArraySpec | None:
    """Return the array of each voxel's region; None where the config names none."""
    bold, root = config.bold, config.study.root
    if bold.regions is None:
        return None
    names = region_names(root / bold.region_names) if bold.region_names else {}
    labels = digests.of(root / bold.regions)
    return ArraySpec(
        "regions",
        (voxels,),
        "int32",
        {"labels": labels, "mask": mask.fingerprint, "names": names},
        {"names": names},
    )


def write_regions(
    config: RunConfig,
    grid: volumes.Grid,
    *,
    store: FeatureStore,
    spec: ArraySpec,
    mask: NDArray[np.bool_],
) -> None:
    """Write each voxel's region."""
    assert config.bold.regions is not None
    path = config.study.root / config.bold.regions
    store.write(spec, volumes.load_labels(path, grid)[mask])


def region_names(path: Path) -> dict[str, str]:
    """Read the names of regions by label.

    Raises
    ------
    DataError
        When the table is missing, or lacks a column.
    """
    import pandas as pd

    from giblet_hpc.files import require_file

    table = pd.read_csv(require_file(path, what="region table"), sep="\t")
    if not {"label", "name"} <= set(table.columns):
        raise DataError(f"{path} needs the columns label and name; it has {list(table.columns)}")
    return {str(label): str(name) for label, name in zip(table.label, table.name, strict=True)}
