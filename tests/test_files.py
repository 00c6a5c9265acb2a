from __future__ import annotations

from pathlib import Path

import pytest

from giblet_hpc import files
from giblet_hpc.errors import DataError


def test_a_failed_write_leaves_the_old_file_and_no_debris(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert files.read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]


def test_json_errors_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match="bad.json is not valid JSON"):
        files.read_json(tmp_path / "bad.json")
    with pytest.raises(DataError, match="file not found"):
        files.read_json(tmp_path / "none.json")


def test_digest_does_not_depend_on_key_order() -> None:
    assert files.sha256_json({"a": 1, "b": 2}) == files.sha256_json({"b": 2, "a": 1})
