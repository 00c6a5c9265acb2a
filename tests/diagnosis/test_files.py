"""A look at a study's files before preprocess: sound ones, and ones with faults planted."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import nibabel
import numpy as np
import pytest

from giblet_hpc.config import io
from giblet_hpc.diagnosis.files import FileCheck
from giblet_hpc.findings import Finding
from giblet_hpc.media import film
from giblet_hpc.survey import survey
from tests.conftest import TINY


def look(root: Path, *settings: str) -> tuple[dict[str, Finding], FileCheck]:
    file = Path(__file__).parents[2] / "configs" / "demo.yaml"
    config = io.load(file, [f"study.root={root}", *TINY, *settings])
    check = FileCheck(survey(config), ranks=1, step_seconds=0.0)
    return {one.check: one for one in check.findings()}, check


@pytest.fixture
def copy(study_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(study_folder, tmp_path / "data")
    return tmp_path / "data"


def test_a_sound_study(study_folder: Path) -> None:
    found, check = look(study_folder)
    assert {one.check for one in found.values() if one.level != "ok"} == {"steps"}
    assert {"film of run1", "annotations of run2", "scans of 03, run2", "scales"} <= set(found)
    figures = check.facts()["files"]
    image = nibabel.load(study_folder / "sub-01_run1.nii.gz")
    first = np.asarray(image.dataobj)[..., :24]
    assert figures["scans/01/run1"]["high"] == pytest.approx(first.max())
    assert figures["scans/01/run1"]["sd"] == pytest.approx(first.std(), rel=1e-4)
    assert figures["film/run1"]["still"] == 0


def test_errors_that_are_not_in_units_of_variance_have_to_wait(study_folder: Path) -> None:
    assert look(study_folder, "loss.normalise=none")[0]["scales"].level == "skipped"
    weights = "loss.modality_weights={video: 10000}"
    assert look(study_folder, weights)[0]["scales"].level == "fail"


def test_scans_with_faults(copy: Path) -> None:
    for name, fault in {"sub-01_run1": np.nan, "sub-02_run1": 0.0}.items():
        path = copy / f"{name}.nii.gz"
        image = nibabel.load(path)
        values = np.asarray(image.dataobj, dtype=np.float32)
        values[..., 3 if np.isnan(fault) else slice(None)] = fault
        made = nibabel.Nifti1Image(values, image.affine)
        made.header.set_zooms(image.header.get_zooms())
        nibabel.save(made, path)
    found, _ = look(copy)
    assert found["scans of 01, run1"].level == "warn"
    assert "are not numbers" in found["scans of 01, run1"].seen
    assert found["scans of 02, run1"].level == "fail"
    assert found["scans of 03, run1"].level == "ok"


def test_a_film_that_stands_still(copy: Path) -> None:
    path = next(copy.glob("film_1.mp4"))
    seconds = film.probe(path).seconds
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24")
        for number in range(round(5 * seconds)):
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found, _ = look(copy, "features.audio=null")
    assert found["film of run1"].level == "fail"
    assert "nothing moves" in found["film of run1"].seen


def test_frames_are_those_of_a_sequential_decode(study_folder: Path) -> None:
    path = next(study_folder.glob("film_1.mp4"))
    times = np.linspace(1.0, 60.0, 5)
    some = list(film.frames_at(path, times, height=18, width=32))
    every = list(film.sample_frames(path, times, height=18, width=32))
    apart = [np.abs(a.astype(int) - b.astype(int)).mean() for a, b in zip(some, every, strict=True)]
    assert max(apart) < 12, "at most the next frame"


@pytest.mark.parametrize("packed", [True, False])
def test_volumes_are_spread_where_a_file_allows_it(
    study_folder: Path, tmp_path: Path, packed: bool
) -> None:
    from giblet_hpc.scans.recordings import Scans
    from giblet_hpc.scans.volumes import VolumeFile

    image = nibabel.load(study_folder / "sub-01_run1.nii.gz")
    path = tmp_path / f"x.nii{'.gz' if packed else ''}"
    nibabel.save(image, path)
    opened = Scans({"run1": VolumeFile([path])}, {"run1": slice(10, 50)}, 1.5)
    values = np.asarray(image.dataobj, dtype=np.float32)
    expected = values[..., 10:14] if packed else values[..., [10, 23, 36, 49]]
    assert opened.sample("run1", 4) == pytest.approx(np.moveaxis(expected, -1, 0))
