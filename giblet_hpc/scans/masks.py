"""The mask of targets: voted for by the subjects, or files; and the regions in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.arrays import ArraySpec
from giblet_hpc.config.bold import VOTES, Bold
from giblet_hpc.digests import Digests, code_digest
from giblet_hpc.errors import DataError
from giblet_hpc.files import reading, require_file
from giblet_hpc.log import progress
from giblet_hpc.scans import recordings
from giblet_hpc.scans.base import Labels, Space
from giblet_hpc.scans.files import StudyScans
from giblet_hpc.store import FeatureStore
from giblet_hpc.study_files import HEMISPHERES, FilePattern


def mask_array(scans: StudyScans, digests: Digests) -> ArraySpec:
    """Return the array of the mask, which the number of targets of all scans depends on."""
    config = scans.config
    bold, space = config.bold, scans.space
    provenance: dict[str, Any] = {
        "code": code_digest(*recordings.CODE, recordings, vote_mask, varying_mask, _MaskVotes),
        "mask": voting(bold, space) or bold.mask,
        "bold": {"vote_threshold": bold.vote_threshold, "dataset": bold.dataset},
    }
    if voting(bold, space):
        firsts = {name: scans.first_run(name) for name in scans.subjects}
        provenance["fields"] = {run: scans.fields(run) for run in sorted(set(firsts.values()))}
        provenance["subjects"] = {
            name: scans.digest(digests, subject=name, run=run) for name, run in firsts.items()
        }
        provenance["bold"] |= {
            name: getattr(bold, name) for name in ("vote_percentile", "vote_trs")
        }
    else:
        provenance["files"] = [digests.of(path) for paths in mask_files(scans) for path in paths]
    attributes = recordings.stored_space(space)
    return ArraySpec("mask", space.shape, "uint8", provenance, attributes)


def voting(bold: Bold, space: Space) -> str:
    """Return `vote` or `varying`, where the scans themselves tell the mask; else nothing."""
    if bold.mask == "auto":
        return "vote" if space.kind == "volume" else "varying"
    return bold.mask if bold.mask in VOTES else ""


def mask_files(scans: StudyScans) -> list[list[Any]]:
    """Return the files of each given mask: of one, or of every subject or run."""
    bold, study = scans.config.bold, scans.config.study
    if bold.one_mask_file:
        return [recordings.hemisphere_files(study.root, bold.mask)]
    found = []
    for subject in scans.subjects:
        for run in scans.lengths:
            if scans.files.of(subject, run):
                sides = HEMISPHERES if "{hemi}" in bold.mask else ("",)
                patterns = [
                    FilePattern(bold.mask.replace("{hemi}", side), study.root) for side in sides
                ]
                found.append([scans.files.beside(p, subject, run) for p in patterns])
    return [paths for number, paths in enumerate(found) if paths not in found[:number]]


def write_mask(scans: StudyScans, *, store: FeatureStore, spec: ArraySpec) -> NDArray[np.bool_]:
    """Write the mask when it is missing; return it.

    Raises
    ------
    DataError
        When it is empty.
    """
    if store.missing(spec):
        mask = _MaskVotes(scans).mask()
        if not mask.any():
            raise DataError("the mask is empty: no target is in it", hint="check bold.mask")
        store.write(spec, mask.astype(np.uint8))
    return store.read(spec.name).astype(bool)


class _MaskVotes:
    """The votes that make up the mask of a study."""

    def __init__(self, scans: StudyScans) -> None:
        self._scans, self._bold = scans, scans.config.bold

    def mask(self) -> NDArray[np.bool_]:
        """Return the places that enough votes are for."""
        votes = self._of_scans() if voting(self._bold, self._scans.space) else self._of_files()
        return np.asarray(votes >= self._bold.vote_threshold)

    def _of_scans(self) -> NDArray[np.float64]:
        bold, subjects = self._bold, self._scans.subjects
        rule = vote_mask if voting(bold, self._scans.space) == "vote" else varying_mask
        total = np.zeros(self._scans.space.shape)
        for subject in progress(subjects, label="mask", total=len(subjects)):
            run = self._scans.first_run(subject)
            own = self._scans.open(subject, run)
            try:
                total += rule(own.rows(run)[: bold.vote_trs], bold)
            except DataError as error:
                path = own.recordings[run].path
                said = str(error) if str(path) in str(error) else f"{path}: {error}"
                raise DataError(said, hint=error.hint) from None
        return total / len(subjects)

    def _of_files(self) -> NDArray[np.float64]:
        space = self._scans.space
        total = np.zeros(space.shape)
        masks = mask_files(self._scans)
        for paths in masks:
            recording = recordings.open_recording(paths)
            space.check(paths[0], recording.space)
            total += recording.labels().values > 0
        return total / len(masks)


def vote_mask(rows: NDArray[np.float32], bold: Bold) -> NDArray[np.bool_]:
    """Return one subject's vote: targets whose SD over time exceeds a percentile.

    Parameters
    ----------
    rows : ndarray, shape (trs, ...)
    bold : Bold
        Percentile of the non-zero SDs.
    """
    deviation = np.nan_to_num(rows.std(axis=0))
    moving = deviation[deviation > 0]
    if moving.size == 0:
        raise DataError("no target varies over time: these are not scans")
    return np.asarray(deviation > np.percentile(moving, bold.vote_percentile))


def varying_mask(rows: NDArray[np.float32], bold: Bold) -> NDArray[np.bool_]:
    """Return one subject's vote: targets that vary over time, all of their values numbers."""
    del bold
    varying = np.isfinite(rows).all(axis=0) & (rows != rows[:1]).any(axis=0)
    if not varying.any():
        raise DataError("no target varies over time: these are not scans")
    return np.asarray(varying)


def regions_array(
    scans: StudyScans, digests: Digests, *, mask: ArraySpec, voxels: int
) -> ArraySpec | None:
    """Return the array of each target's region; None where the config names none."""
    bold, root = scans.config.bold, scans.config.study.root
    if bold.regions is None:
        return None
    labels = [digests.of(path) for path in recordings.hemisphere_files(root, bold.regions)]
    names = _regions(scans).names
    return ArraySpec(
        "regions",
        (voxels,),
        "int32",
        {"labels": labels, "mask": mask.fingerprint, "names": dict(names)},
        {"names": dict(names)},
    )


def write_regions(
    scans: StudyScans, *, store: FeatureStore, spec: ArraySpec, mask: NDArray[np.bool_]
) -> None:
    """Write each target's region."""
    store.write(spec, _regions(scans).values[mask])


def _regions(scans: StudyScans) -> Labels:
    """Read the atlas; its names are those of the config's table, else its own."""
    bold, root = scans.config.bold, scans.config.study.root
    assert bold.regions is not None
    labels = recordings.read_labels(root, bold.regions, scans.space)
    if bold.region_names:
        return Labels(labels.values, region_names(root / bold.region_names))
    return labels


def region_names(path: Path) -> dict[str, str]:
    """Read the names of regions by label.

    Raises
    ------
    DataError
        When the table is missing, or lacks a column.
    """
    import pandas as pd

    require_file(path, what="region table")
    with reading(path, "a table of regions"):
        table = pd.read_csv(path, sep="\t")
    # BIDS calls the label of a discrete segmentation its index.
    table = table.rename(columns={"index": "label"}) if "label" not in table else table
    if not {"label", "name"} <= set(table.columns):
        raise DataError(
            f"{path} needs the columns label (or index) and name; it has {list(table.columns)}"
        )
    return {str(label): str(name) for label, name in zip(table.label, table.name, strict=True)}
