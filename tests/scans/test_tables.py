"""Tables: arrays of TRs by targets, in files of several kinds."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from giblet_hpc.errors import DataError
from giblet_hpc.scans.tables import Columns, TableFile

ROWS = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32)


def written(path: Path, rows: np.ndarray = ROWS) -> Path:
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file.create_dataset("ses-01/task-a", data=rows)
    elif path.suffix == ".npz":
        np.savez(path, a=rows)
    elif path.suffix in (".npy", ".NPY"):
        with path.open("wb") as handle:
            np.save(handle, rows)
    else:
        columns = [f"p{n}" for n in range(rows.shape[1])]
        table = pd.DataFrame(rows, columns=columns)
        table.to_csv(path, sep="\t" if path.suffix == ".tsv" else ",", index=False)
    return path


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".npy", ".NPY", ".tsv", ".csv"])
def test_rows_of_each_kind_of_file(tmp_path: Path, suffix: str) -> None:
    found = TableFile([written(tmp_path / f"s{suffix}")])
    assert (found.trs, found.tr, found.space) == (8, None, Columns(5))
    np.testing.assert_allclose(found.rows(slice(2, 6)), ROWS[2:6], rtol=1e-6)
    assert found.rows(slice(None)).dtype == np.float32


def test_several_arrays_need_a_choice(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    with h5py.File(path, "w") as file:
        file["ses-1_task-a"], file["ses-2_task-b"] = ROWS, 2 * ROWS
    with pytest.raises(DataError, match="holds 2 arrays: ses-1_task-a, ses-2_task-b"):
        TableFile([path])
    found = TableFile([path], lambda path, names: sorted(names)[1])
    np.testing.assert_array_equal(found.rows(slice(None)), 2 * ROWS)


def test_what_is_no_table(tmp_path: Path) -> None:
    for suffix in (".h5", ".npz", ".npy", ".tsv"):
        path = tmp_path / f"s{suffix}"
        path.write_bytes(b"a\tb\nx\ty\n" if suffix == ".tsv" else b"\x00no array")
        with pytest.raises(DataError, match="cannot be read as an array of TRs and targets"):
            TableFile([path])
    with pytest.raises(DataError, match=r"has the shape \(2, 3, 4\)"):
        TableFile([written(tmp_path / "s.npy", np.ones((2, 3, 4)))])
    dangerous = np.array([{"a": 1}], dtype=object)
    np.save(tmp_path / "o.npy", dangerous, allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        TableFile([tmp_path / "o.npy"])


def test_labels_are_a_row_or_a_column(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 2, 1, 0]])
    for values in (labels, labels.T, labels[0]):
        found = TableFile([written(tmp_path / "a.npy", values)]).labels()
        np.testing.assert_array_equal(found.values, labels[0])


def test_values_are_written_by_target(tmp_path: Path) -> None:
    mask = np.array([True, False, True, True])
    (path,) = Columns(4).write(tmp_path / "r", np.array([0.5, -0.25, 1.0]), mask)
    assert path.read_text().splitlines() == [
        "target\tvalue", "0\t0.5", "1\tn/a", "2\t-0.25", "3\t1",
    ]  # fmt: skip
    (path,) = Columns(4).write(tmp_path / "rows", np.ones((2, 3)), mask, tr=1.5)
    again = np.load(path)
    assert again.shape == (2, 4)
    assert np.isnan(again[:, 1]).all()
    assert Columns.restored((4,), {}) == Columns(4)
    with pytest.raises(DataError, match="has 3 columns; the study's tables have 4"):
        Columns(4).check("x", Columns(3))


@pytest.mark.parametrize("suffix", [".tsv", ".csv"])
def test_a_text_table_without_a_header_keeps_its_first_row(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"s{suffix}"
    np.savetxt(path, ROWS, delimiter="\t" if suffix == ".tsv" else ",")
    found = TableFile([path])
    assert found.trs == len(ROWS)
    np.testing.assert_allclose(found.rows(slice(None)), ROWS, rtol=1e-6)
