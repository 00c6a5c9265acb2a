"""All that headers tell of a study's files, at once and before anything is queued."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import openpyxl
import pytest
from click.testing import CliRunner

from giblet_hpc import problems
from giblet_hpc.cli.main import main
from giblet_hpc.config import io
from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import DataError
from tests.conftest import TINY
from tests.films import write_film

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
    assert problems.problems(of(study_folder)) == []
    problems.require_sound(of(study_folder))


def test_all_problems_are_named_at_once(copy: Path) -> None:
    spoil(copy)
    with pytest.raises(DataError) as caught:
        problems.require_sound(of(copy))
    text = str(caught.value)
    assert text.startswith("3 problems with the study's files:")
    assert "sub-02_run1.nii.gz has a TR of 2.5 s; the config says 1.5 s" in text
    assert "film_2.mp4" in text
    assert "Scene Details" in text


def test_one_problem_is_an_error_of_its_own(copy: Path) -> None:
    (copy / "sub-03_run2.nii.gz").unlink()
    with pytest.raises(DataError, match="sub-03_run2") as caught:
        problems.require_sound(of(copy))
    assert "problems" not in str(caught.value)
    with pytest.raises(DataError, match=r"bold\.regions: no file"):
        problems.require_sound(of(copy, "bold.regions=nowhere.nii.gz", "study.subjects=2"))


def plant(root: Path) -> None:
    """Ten mistakes, each in a file of its own."""
    image = nibabel.load(root / "sub-01_run1.nii.gz")
    data = image.get_fdata(dtype=np.float32)
    # 1: another TR. 2: no scans at all. 3: another grid. 4: far too short.
    other = nibabel.Nifti1Image(data, image.affine, image.header)
    other.header.set_zooms((3, 3, 3, 2.5))
    nibabel.save(other, root / "sub-02_run1.nii.gz")
    (root / "sub-03_run1.nii.gz").write_bytes(b"<html>404</html>")
    second = nibabel.load(root / "sub-01_run2.nii.gz")
    smaller = second.get_fdata(dtype=np.float32)[1:]
    nibabel.save(
        nibabel.Nifti1Image(smaller, image.affine, second.header), root / "sub-03_run2.nii.gz"
    )
    short = nibabel.Nifti1Image(data[..., :9], image.affine, image.header)
    nibabel.save(short, root / "sub-02_run2.nii.gz")
    # 5: a film without sound. 6: a film cut off.
    write_film(root / "film_1.mp4", np.zeros((960, 36, 64, 3), np.uint8), fps=10)
    (root / "film_2.mp4").write_bytes((root / "film_2.mp4").read_bytes()[:2000])
    # 7: a time that is none. 8: a row too many of confounds. 9: a confound that is no number.
    rows = ["onset,offset,what", "0,6,kettle", "6..2,12,taxi"]
    (root / "run1.csv").write_text("\n".join(rows))
    (root / "run2.csv").write_text("onset,offset,what\n0,6,kettle\n")
    for name, trs in (("01_run1", 64), ("01_run2", 41), ("02_run2", 9), ("03_run2", 40)):
        values = ["0.5"] * trs
        if name == "01_run1":
            values[30] = "n/a"
        (root / f"c_{name}.tsv").write_text("a\n" + "\n".join(values) + "\n")
    # 10: an atlas with several volumes.
    labels = nibabel.load(root / "regions.nii.gz")
    four = np.stack([labels.get_fdata()] * 3, axis=-1)
    nibabel.save(nibabel.Nifti1Image(four.astype(np.int16), labels.affine), root / "regions.nii.gz")


def test_ten_mistakes_on_one_screen(copy: Path) -> None:
    plant(copy)
    settings = [
        "study.annotations={start_seconds: onset, end_seconds: offset, start_tr: null,"
        " end_tr: null, text: [what]}",
        "study.runs=[{name: run1, film: film_1.mp4, annotations: run1.csv},"
        " {name: run2, film: film_2.mp4, annotations: run2.csv}]",
        "bold.confounds=c_{subject}_{run}.tsv", "bold.confound_columns=[a]",
        "bold.max_missing_trs=10",
    ]  # fmt: skip
    sets = [part for one in [f"study.root={copy}", *TINY, *settings] for part in ("--set", one)]
    done = CliRunner().invoke(main, ["config", "check", str(CONFIG), "--data", *sets])
    assert done.exit_code == 2
    text = done.output
    for part in (
        "sub-02_run1.nii.gz has a TR of 2.5 s; the config says 1.5 s",
        "sub-03_run1.nii.gz cannot be read as NIfTI",
        "sub-03_run2.nii.gz has a grid of (6, 8, 6) voxels; the study's is (7, 8, 6)",
        "run run2 should have 40 TRs; these subjects have fewer: {'02': 9}",
        "film_1.mp4 has no sound track, which features.audio needs",
        "film_2.mp4 as a film",
        "run1.csv, column onset: 1 of 2 rows hold no time: row 3 ('6..2')",
        "c_01_run2.tsv has 41 rows; ",
        "c_01_run1.tsv: column a holds no number in 1 of 64 rows",
        "regions.nii.gz has 3 volumes; a mask or an atlas of labels has one",
    ):
        assert part in text, text
    lines = text.splitlines()
    assert len(lines) < 24, "a screen"
    assert "Traceback" not in text


def test_a_table_of_confounds_for_each_run_of_one_file(copy: Path) -> None:
    for subject in ("01", "02", "03"):
        parts = [nibabel.load(copy / f"sub-{subject}_run{n}.nii.gz") for n in (1, 2)]
        whole = np.concatenate([part.get_fdata(dtype=np.float32) for part in parts], axis=3)
        image = nibabel.Nifti1Image(whole, parts[0].affine, parts[0].header)
        nibabel.save(image, copy / f"all-{subject}.nii.gz")
        for n, trs in ((1, 64), (2, 40)):
            (copy / f"c_{subject}_run{n}.tsv").write_text("a\n" + "0.5\n0.25\n" * (trs // 2))
    settings = [
        "study.runs=[{name: run1, trs: 64, film: film_1.mp4}, {name: run2, trs: 40, film: film_2.mp4}]",
        "bold.files=all-{subject}.nii.gz", "bold.confounds=c_{subject}_{run}.tsv",
        "bold.confound_columns=[a]",
    ]  # fmt: skip
    assert problems.problems(of(copy, *settings)) == []
