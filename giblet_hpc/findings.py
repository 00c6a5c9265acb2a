"""What a check-up sees: a sentence and a remedy for each finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from giblet_hpc.errors import JobError

Level = Literal["ok", "warn", "fail", "skipped"]


@dataclass(frozen=True)
class Finding:
    """What a check saw.

    Parameters
    ----------
    check : str
        Its name.
    level : str
        ``ok``, ``warn`` (slow or risky), ``fail`` (will not work) or ``skipped``.
    seen : str
        In a sentence.
    fix : str
        What to do about it.
    """

    check: str
    level: Level
    seen: str
    fix: str = ""


def worst(findings: Sequence[Finding]) -> Level:
    """Return the gravest level."""
    levels: tuple[Level, ...] = ("fail", "warn", "ok")
    return next((lev for lev in levels if any(f.level == lev for f in findings)), "skipped")


def as_text(findings: Sequence[Finding]) -> str:
    """Return the findings as lines, a remedy below what needs one."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.level:<8}{finding.check}: {finding.seen}")
        if finding.fix and finding.level in ("warn", "fail"):
            lines.append(f"{'':8}fix: {finding.fix}")
    return "\n".join(lines)


def require_good(findings: Sequence[Finding]) -> None:
    """Check that nothing was found that will not work.

    Raises
    ------
    JobError
        Listing what was found, with the remedies.
    """
    if worst(findings) == "fail":
        bad = [finding for finding in findings if finding.level == "fail"]
        raise JobError(
            f"this cannot work here:\n{as_text(bad)}",
            hint="`giblet-hpc doctor` shows all; --no-checks submits all the same",
        )
