"""Files that claim more than they can hold, or come to more than anybody wants, cost no memory."""

from __future__ import annotations

import gzip
import struct
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from giblet_hpc import limits
from giblet_hpc.config import io as config_io
from giblet_hpc.errors import DataError
from giblet_hpc.scans.volumes import open_image


@pytest.mark.parametrize(("width", "depth"), [(9, 29), (10, 8), (2, 40)])
def test_a_yaml_file_of_aliases_of_aliases(tmp_path: Path, width: int, depth: int) -> None:
    """Also where there are few of them: it is what they come to that counts."""
    lines = [f"a0: &a0 [{', '.join('x' * width)}]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, depth + 1)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    with pytest.raises(DataError, match="comes to very many values") as caught:
        config_io.read_tree(tmp_path / "bomb.yaml")
    assert "GIBLET_MOST_YAML_VALUES=" in caught.value.hint


def test_a_large_or_endless_yaml_file(tmp_path: Path) -> None:
    (tmp_path / "large.yaml").write_text("a: " + "x" * 1_100_000)
    with pytest.raises(DataError, match="very many megabytes"):
        config_io.read_tree(tmp_path / "large.yaml")
    (tmp_path / "endless.yaml").write_text("a: &a [1, *a]\n")
    with pytest.raises(DataError, match="comes to very many values: inf"):
        config_io.read_tree(tmp_path / "endless.yaml")


def test_values_are_counted_as_if_written_out() -> None:
    assert config_io.written_out("a: &x {b: 1}\nc: *x\n") == 1 + 2 * (1 + 3)
    assert config_io.written_out("a: &x {b: 1}\nc: {b: 1}\n") == 9
    assert config_io.written_out("a: &x 7\nb: [*x, *x]\n") == 7


def test_a_few_aliases_are_fine_and_limits_can_be_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.yaml").write_text("a: &x {b: 1}\nc: *x\nd: 'not * an alias'\n")
    assert config_io.read_tree(tmp_path / "a.yaml")["c"] == {"b": 1}
    monkeypatch.setenv("GIBLET_MOST_YAML_VALUES", "5")
    with pytest.raises(DataError, match="comes to very many values"):
        config_io.read_tree(tmp_path / "a.yaml")


def test_a_spreadsheet_that_inflates(tmp_path: Path) -> None:
    good, bomb = tmp_path / "good.xlsx", tmp_path / "bomb.xlsx"
    pd.DataFrame({"a": [1]}).to_excel(good)
    limits.require_workbook(good)
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(6):
            archive.writestr(f"xl/worksheets/sheet{number}.xml", bytes(100_000_000))
    assert bomb.stat().st_size < 1_000_000
    with pytest.raises(DataError, match="comes to very many megabytes: 600"):
        limits.require_workbook(bomb)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_scan_whose_header_claims_more_than_the_file_holds(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"scan{suffix}"
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 9), np.float32), np.eye(4)), file)
    assert open_image(file).shape == (4, 4, 4, 9)
    content = bytearray(
        gzip.decompress(file.read_bytes()) if ".gz" in suffix else file.read_bytes()
    )
    # dim[0..4] of the NIfTI-1 header.
    content[40:50] = struct.pack("<5h", 4, 3000, 3000, 3000, 3000)
    file.write_bytes(gzip.compress(bytes(content)) if ".gz" in suffix else bytes(content))
    with pytest.raises(DataError, match="its header claims 324,000,000,000,000 bytes"):
        open_image(file)
