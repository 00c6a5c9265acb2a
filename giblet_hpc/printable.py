"""Text from files, as a terminal may show it."""

from __future__ import annotations

import re
from collections.abc import Sequence

CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What moves the cursor, renames windows or turns the direction of writing; all but \\t and \\n."""


def printable(text: str) -> str:
    """Return text in which characters that control a terminal are spelt out.

    A file that others can write could otherwise hide lines, or type commands. A carriage return,
    with which progress bars begin anew, becomes a new line.

    Examples
    --------
    >>> printable("done\\x1b[2J")
    'done\\\\x1b[2J'
    """
    return CONTROLS.sub(_spelt_out, text.replace("\r\n", "\n").replace("\r", "\n"))


def _spelt_out(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def in_columns(cells: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
