"""Every mistake that users make gets one screen of text, exit code 2 and no traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from tests.conftest import TINY, Cli, sets


def replace_film(data: Path) -> None:
    (data / "film_2.mp4").write_bytes(os.urandom(5000))


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def cut_film(data: Path) -> None:
    cut(data / "film_1.mp4")


def cut_scan(data: Path) -> None:
    cut(data / "sub-02_run2.nii.gz")


def cut_sheet(data: Path) -> None:
    cut(data / "annotations.xlsx")


def change_scan(data: Path, change: Callable[[nibabel.Nifti1Image], nibabel.Nifti1Image]) -> None:
    path = data / "sub-02_run1.nii.gz"
    image = change(nibabel.load(path))
    nibabel.save(image, data / "new.nii.gz")
    (data / "new.nii.gz").replace(path)


def other_grid(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image(image.get_fdata(dtype=np.float32)[1:], image.affine, image.header)


def other_tr(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    image.header.set_zooms((3, 3, 3, 2.2))
    return image


def not_a_number(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    data = image.get_fdata(dtype=np.float32).copy()
    data[3, 4, 3, 10] = np.nan
    return nibabel.Nifti1Image(data, image.affine, image.header)


def too_few_trs(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    return image.slicer[..., :20]


def drop_column(data: Path) -> None:
    table = pd.read_excel(data / "annotations.xlsx")
    table.drop(columns="Scene Details - A Level ").to_excel(data / "annotations.xlsx", index=False)


CASES: dict[str, tuple[Callable[[Path], object] | None, list[str], str]] = {
    "missing film": (lambda d: (d / "film_1.mp4").unlink(), [], "film not found: "),
    "unreadable film": (replace_film, [], "cannot read "),
    "cut film": (cut_film, [], "film_1.mp4 as a film"),
    "cut scan": (cut_scan, [], "sub-02_run2.nii.gz cannot be read as NIfTI"),
    "cut sheet": (cut_sheet, [], "annotations.xlsx cannot be read as an annotation sheet"),
    "missing scan": (lambda d: (d / "sub-02_run2.nii.gz").unlink(), [], "scan not found: "),
    "other grid": (lambda d: change_scan(d, other_grid), [], "has a grid of (6, 8, 6) voxels"),
    "other TR": (lambda d: change_scan(d, other_tr), [], "has a TR of 2.2 s; the config says 1.5"),
    "NaN": (lambda d: change_scan(d, not_a_number), [], "1 voxels inside the mask hold NaN"),
    "short scan": (lambda d: change_scan(d, too_few_trs), ["bold.max_missing_trs=30"], "'02': 20"),
    "film of other length": (None, ["study.tr=1.5", "study.runs.0.trs=90"], "the film lasts 64"),
    "no column": (drop_column, [], "lacks the columns ['Scene Details - A Level']"),
    "absent subject": (None, ["study.subjects=['01', '07']"], "lists ['07'], who have no scans"),
    "typo": (None, ["train.epoch=3"], "train.epoch: unknown field; did you mean `epochs`?"),
    "no encoder": (None, ["features.text={encoder: nobody/nothing}"], "text encoder not found"),
    "no codec": (None, ["features.audio={}"], "EnCodec weights not found on this machine"),
    "no atlas": (None, ["bold.regions=none.nii.gz"], "bold.regions: no file "),
    "no best r": (None, ["evaluate.best_r=none.nii.gz"], "evaluate.best_r: no file "),
    "short split": (None, ["split.purge_seconds=67.5"], "the split leaves fewer than 8 TRs"),
}


def assert_one_screen(done: subprocess.CompletedProcess[str], words: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in done.stderr
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert len(done.stderr.splitlines()) <= 24


@pytest.fixture
def data(study_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(study_folder, tmp_path / "data"))


@pytest.mark.parametrize("case", CASES)
def test_one_screen_and_exit_2(case: str, data: Path, cli: Cli, demo_config: str) -> None:
    spoil, options, words = CASES[case]
    if spoil:
        spoil(data)
    settings = sets([f"study.root={data}", "study.store=store.zarr", *TINY, *options])
    done = cli("run", "preprocess", "--config", demo_config, *settings, check=False)
    assert_one_screen(done, words)


def test_no_config_and_no_run(cli: Cli) -> None:
    done = cli("run", "preprocess", "--config", "none.yaml", check=False)
    assert_one_screen(done, "config not found: none.yaml")
    assert_one_screen(cli("submit", "train", check=False), "no runs of yours in ")


def test_store_of_other_settings(data: Path, cli: Cli, demo_config: str) -> None:
    settings = sets([f"study.root={data}", "study.store=store.zarr", *TINY])
    cli("run", "preprocess", "--config", demo_config, *settings)
    other = [*settings, "--set", "features.video.width=40"]
    done = cli("run", "preprocess", "other", "--config", demo_config, *other, check=False)
    assert_one_screen(done, "`stimulus/run1/video` was made with other settings:")
    assert "features.video.width: 32 -> 40" in done.stderr
    assert cli("store", "verify", "store.zarr").stdout == "all shards are good\n"
    cli("run", "preprocess", "other", "--config", demo_config, *other, "--rebuild")
    stale = cli("run", "train", "demo", "--ranks", "2", check=False)
    assert_one_screen(stale, "was made anew with other settings since this run's preprocess")


@pytest.mark.slow
def test_results_of_other_data_are_set_aside(data: Path, cli: Cli, demo_config: str) -> None:
    """A scan is replaced after training: nothing of the old data is scored as if of the new."""
    settings = sets([f"study.root={data}", "study.store=store.zarr", *TINY, "train.epochs=1"])
    cli("run", "preprocess", "--config", demo_config, *settings)
    cli("run", "train", "demo")
    old = (cli.runs / "demo" / "checkpoints" / "latest").stat().st_mtime_ns
    change_scan(
        data,
        lambda image: nibabel.Nifti1Image(image.get_fdata()[..., ::-1], image.affine, image.header),
    )
    refused = cli("run", "preprocess", "demo", check=False)
    assert_one_screen(refused, "was made with other settings")
    done = cli("run", "preprocess", "demo", "--rebuild")
    assert "the data have changed; results of the old ones are now in" in done.stderr
    assert not (cli.runs / "demo" / "checkpoints").exists()
    (kept,) = (cli.runs / "demo" / "set-aside").glob("*/checkpoints/latest")
    assert kept.stat().st_mtime_ns == old
    early = cli("run", "evaluate", "demo", check=False)
    assert "train is not started" in early.stderr
    cli("run", "train", "demo")


def test_full_disk(data: Path, cli: Cli, demo_config: str, tmp_path: Path) -> None:
    """On a real, small file system; finished work is kept and the same command goes on."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        settings = sets([f"study.root={data}", f"study.store={small}/store.zarr", *TINY])
        arguments = ("run", "preprocess", "--config", demo_config, *settings)
        done = cli(*arguments, check=False)
        assert_one_screen(done, "the disk is full or the quota is used up")
        before = {p for p in small.rglob("*.json") if "commits" in p.parts}
        assert before
        times = {path: path.stat().st_mtime_ns for path in before}
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        cli(*arguments)
        assert cli("store", "verify", f"{small}/store.zarr").stdout == "all shards are good\n"
        assert {path: path.stat().st_mtime_ns for path in before} == times
    finally:
        subprocess.run(["umount", str(small)], check=True)
