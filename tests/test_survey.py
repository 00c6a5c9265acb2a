"""All that headers tell of a study's files, at once and before anything is queued."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import openpyxl
import pytest

from giblet_hpc import survey
from giblet_hpc.config import io
from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import DataError
from tests.conftest import TINY

CONFIG = Path(__file__).parents[1] / "configs" / "demo.yaml"


@pytest.fixture
def copy(study_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(study_folder, tmp_path / "data")
    return tmp_path / "data"


def of(root: Path, *settings: str) -> RunConfig:
    return io.load(CONFIG, [f"study.root={root}", *TINY, *settings])


def spoil(root: Path) -> None:
    """Another TR in one header, a film cut off, a column of the sheet renamed."""
    path = root / "sub-02_run1.nii.gz"
    image = nibabel.load(path)
    image.header.set_zooms((*image.header.get_zooms()[:3], 2.5))
    nibabel.save(image, path)
    (root / "film_2.mp4").write_bytes((root / "film_2.mp4").read_bytes()[:2000])
    file = root / "annotations.xlsx"
    book = openpyxl.load_workbook(file)
    sheet = book.worksheets[0]
    for cell in sheet[1]:
        if cell.value and "Scene Details" in str(cell.value):
            cell.value = "Details"
    book.save(file)


def test_a_sound_study_has_no_problems(study_folder: Path) -> None:
    assert survey.problems(of(study_folder)) == []
    survey.require_sound(of(study_folder))


def test_all_problems_are_named_at_once(copy: Path) -> None:
    spoil(copy)
    with pytest.raises(DataError) as caught:
        survey.require_sound(of(copy))
    text = str(caught.value)
    assert text.startswith("3 problems with the study's files:")
    assert "sub-02_run1.nii.gz has a TR of 2.5 s; the config says 1.5 s" in text
    assert "film_2.mp4" in text
    assert "Scene Details" in text


def test_one_problem_is_an_error_of_its_own(copy: Path) -> None:
    (copy / "sub-03_run2.nii.gz").unlink()
    with pytest.raises(DataError, match="sub-03_run2") as caught:
        survey.require_sound(of(copy))
    assert "problems" not in str(caught.value)
    with pytest.raises(DataError, match=r"bold\.regions: no file"):
        survey.require_sound(of(copy, "bold.regions=nowhere.nii.gz", "study.subjects=2"))
