"""Nothing that controls a terminal passes."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from giblet_hpc.errors import ConfigError
from giblet_hpc.printable import in_columns, printable


def test_sequences_are_spelt_out_and_text_stays() -> None:
    assert printable("a\x1b]0;title\x07b") == "a\\x1b]0;title\\x07b"
    assert printable("50%\r100%\r\n") == "50%\n100%\n"
    assert printable("Köln\t→ 日本 🏖️\n") == "Köln\t→ 日本 🏖️\n"
    assert printable("\u202egnp.exe") == "\\u202egnp.exe"
    assert ConfigError("run \x1b[2J", hint="\x07").render() == "error: run \\x1b[2J\n\nhint: \\x07"


@given(st.text())
def test_only_tabs_and_new_lines_control(text: str) -> None:
    shown = printable(text)
    assert not [c for c in shown if unicodedata.category(c) == "Cc" and c not in "\t\n"]


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert in_columns([["a", "bb", ""], ["ccc", "d", "e"]]) == ["a    bb", "ccc  d   e"]
