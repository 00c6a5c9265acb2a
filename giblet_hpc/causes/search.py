"""What lies behind a message or a log: a search through the tables of known causes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from giblet_hpc.causes import gpus, network, nodes, software
from giblet_hpc.causes.base import Cause

CAUSES = (*gpus.CAUSES, *network.CAUSES, *nodes.CAUSES, *software.CAUSES)
"""In the order in which one is taken for the cause: what is more particular comes first."""
ROLES = ("root", "confirmation", "cascade")


@dataclass(frozen=True)
class Match:
    """A known cause, and where it was read.

    Parameters
    ----------
    cause : Cause
    line : int
        Of the text, from 1.
    text : str
        The line.
    source : str
        What the text is of; empty where that is known.
    """

    cause: Cause
    line: int
    text: str
    source: str = ""

    @property
    def rank(self) -> tuple[int, int, int]:
        """Return what sorts the most likely cause first."""
        return ROLES.index(self.cause.role), CAUSES.index(self.cause), self.line


def matches(text: str, source: str = "") -> list[Match]:
    """Return the first place of each known cause in a text, the most likely cause first."""
    found = []
    for cause in CAUSES:
        hit = re.search(cause.pattern, text)
        if hit is not None:
            begin = text.rfind("\n", 0, hit.end() - 1) + 1
            line = text[begin:].partition("\n")[0].strip()
            found.append(Match(cause, text.count("\n", 0, begin) + 1, line, source))
    return sorted(found, key=lambda match: match.rank)


def explain(text: str) -> Cause | None:
    """Return what lies behind a message or a log; None when it is not known.

    A cascade is named only where there is nothing else, and is then no cause.
    """
    return best(matches(text))


def best(found: Iterable[Match]) -> Cause | None:
    """Return the most likely cause of some matches; None when there are none."""
    first = min(found, key=lambda match: match.rank, default=None)
    return first.cause if first is not None else None


def named(name: str) -> Cause | None:
    """Return the cause of a name; None when no table has it."""
    return next((cause for cause in CAUSES if cause.name == name), None)
