"""Confounds: columns, strategies, and scans that they rule out."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from nilearn.interfaces.fmriprep import load_confounds

from giblet_hpc.config.bold import MOTION, Bold
from giblet_hpc.errors import DataError
from giblet_hpc.scans import confounds

RANDOM = np.random.default_rng(0)
TRS = 30


def options(**given: object) -> Bold:
    return Bold(confounds="c_{subject}_{run}.tsv", **given)  # type: ignore[arg-type]


def save(path: Path, columns: dict[str, object]) -> Path:
    pd.DataFrame(columns).to_csv(path, sep="\t", index=False)
    return path


def test_columns_of_a_table(tmp_path: Path) -> None:
    path = save(tmp_path / "c.tsv", {"a": ["n/a", 1.0, 2.0], "b": [3.0, 4.0, 5.0]})
    found = confounds.read_regressors(path, options(confound_columns=("a", "b")), scans=path)
    np.testing.assert_array_equal(found.values, [[1, 3], [1, 4], [2, 5]])
    assert found.usable.all()
    with pytest.raises(DataError, match=r"lacks the columns \['c'\]; it has 2: a, b"):
        confounds.read_regressors(path, options(confound_columns=("c",)), scans=path)


@pytest.mark.parametrize("rows", [[2], [0, 1], [3], [0, 1, 2, 3], [0, 3]])
def test_what_is_no_number_is_named(tmp_path: Path, rows: list[int]) -> None:
    column: list[object] = [1.0, 2.0, 3.0, 4.0]
    for row in rows:
        column[row] = "n/a"
    path = save(tmp_path / "c.tsv", {"a": column})
    with pytest.raises(DataError, match=rf"column a holds no number in {len(rows)} of 4 rows"):
        confounds.read_regressors(path, options(confound_columns=("a",)), scans=path)


@pytest.mark.parametrize("name", ["m.1D", "m_mcparams.txt", "m.par"])
def test_tables_without_a_header(tmp_path: Path, name: str) -> None:
    values = RANDOM.standard_normal((5, 6))
    path = tmp_path / name
    np.savetxt(path, values, header="made by a tool" if name.endswith("1D") else "")
    found = confounds.read_regressors(path, options(confound_columns=("all",)), scans=path)
    np.testing.assert_allclose(found.values, values, rtol=1e-5)
    found = confounds.read_regressors(path, options(confound_columns=("2", "5")), scans=path)
    np.testing.assert_allclose(found.values, values[:, [1, 4]], rtol=1e-5)


def test_scans_that_moved_or_came_too_early_are_ruled_out(tmp_path: Path) -> None:
    path = save(tmp_path / "c.tsv", {
        "framewise_displacement": ["n/a", 0.1, 0.7, 0.2, 0.5],
        "non_steady_state_outlier00": [1, 0, 0, 0, 0],
        **{name: [0.1, 0.2, 0.3, 0.2, 0.1] for name in MOTION},
    })  # fmt: skip
    found = confounds.read_regressors(path, options(scrub_fd=0.5), scans=path)
    assert found.usable.tolist() == [False, True, False, True, True]
    assert found.values is not None
    assert found.values.shape == (5, 6)
    only = confounds.read_regressors(path, options(scrub_fd=0.5, confound_columns=()), scans=path)
    assert only.values is None


def fmriprep(folder: Path) -> Path:
    """Scans and confounds with fMRIPrep's names, columns and JSON."""
    columns: dict[str, object] = {}
    for name in (*MOTION, "csf", "white_matter", "global_signal"):
        values = RANDOM.standard_normal(TRS)
        columns[name] = values
        columns[f"{name}_derivative1"] = ["n/a", *np.diff(values)]
        columns[f"{name}_power2"] = values**2
        columns[f"{name}_derivative1_power2"] = ["n/a", *np.diff(values) ** 2]
    for number in range(8):
        columns[f"a_comp_cor_0{number}"] = RANDOM.standard_normal(TRS)
        columns[f"cosine0{number}"] = np.cos(np.arange(TRS) * (number + 1) / TRS)
    columns["framewise_displacement"] = ["n/a", *np.full(TRS - 1, 0.1)]
    stem = "sub-01_task-movie_run-1"
    save(folder / f"{stem}_desc-confounds_timeseries.tsv", columns)
    meta = {
        f"a_comp_cor_0{n}": {"Mask": "combined", "Method": "aCompCor", "Retained": True}
        for n in range(8)
    }
    (folder / f"{stem}_desc-confounds_timeseries.json").write_text(json.dumps(meta))
    scans = folder / f"{stem}_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ones((2, 2, 2, TRS), np.float32), np.eye(4)), scans)
    return scans


def test_strategies_are_nilearns(tmp_path: Path) -> None:
    scans = fmriprep(tmp_path)
    table = scans.with_name("sub-01_task-movie_run-1_desc-confounds_timeseries.tsv")
    chosen = ("motion", "wm_csf", "compcor", "high_pass")
    given = options(confound_strategy=chosen, confound_motion="full", confound_compcor=5)
    found = confounds.read_regressors(table, given, scans=scans)
    expected, _ = load_confounds(
        str(scans), strategy=chosen, motion="full", n_compcor=5, demean=False
    )
    assert found.values is not None
    assert found.values.shape == (TRS, 24 + 2 + 5 + 8)
    np.testing.assert_allclose(found.values, expected.to_numpy(), rtol=1e-5)


def test_a_strategy_needs_the_names_of_fmriprep(tmp_path: Path) -> None:
    scans = fmriprep(tmp_path)
    table = save(tmp_path / "own.tsv", {name: RANDOM.standard_normal(TRS) for name in MOTION})
    other = scans.rename(tmp_path / "scan.nii.gz")
    with pytest.raises(DataError, match="cannot be read as fMRIPrep's confounds"):
        confounds.read_regressors(table, options(confound_strategy=("motion",)), scans=other)
