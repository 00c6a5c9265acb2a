"""Logs of any bytes and any size."""

from __future__ import annotations

from pathlib import Path

import pytest

from giblet_hpc.jobs.inspect import logs


def test_bytes_of_all_kinds_are_shown(tmp_path: Path) -> None:
    file = tmp_path / "node-0.log"
    file.write_bytes("Köln".encode() + b"\xff\x00\x1b[2J\n" + "ö".encode()[:1])
    assert "".join(logs.read_log(file)) == "Köln\\xff\\x00\\x1b[2J\n\\xc3"


def test_a_log_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "PIECE_BYTES", 3)
    file = tmp_path / "node-0.log"
    file.write_text("äöü€🏖")
    pieces = list(logs.read_log(file))
    assert len(pieces) > 3
    assert "".join(pieces) == "äöü€🏖"


def test_half_a_character_waits_for_its_other_half(tmp_path: Path) -> None:
    file = tmp_path / "node-0.log"
    file.write_bytes("a€".encode()[:2])
    reader = logs.Reader(file)
    assert "".join(reader.read()) == "a"
    with file.open("ab") as handle:
        handle.write("a€".encode()[2:])
    assert "".join(reader.read()) == "€"
