"""What the logs of an attempt say of known causes, with file and line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from giblet_hpc.causes import search
from giblet_hpc.causes.search import Match
from giblet_hpc.jobs.record.attempts import Attempt
from giblet_hpc.printable import printable
from giblet_hpc.runs.paths import RunPaths

TAIL_BYTES = 200_000
LONGEST = 240


@dataclass(frozen=True)
class Seen:
    """A known cause that was read in a log.

    Parameters
    ----------
    match : Match
        With the line counted from the beginning of the file.
    host : str
        Whose log it is; empty for the job's own.
    """

    match: Match
    host: str

    def __str__(self) -> str:
        """Return file, line and what stands there."""
        text = printable(self.match.text)
        text = text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
        return f"{self.match.source}:{self.match.line}: {text}"


def gather(attempt: Attempt) -> list[Seen]:
    """Return what the nodes' logs and the job's own say, the most likely cause first."""
    root = attempt.folder.parent.parent
    found = []
    for node, record in sorted(attempt.nodes().items()):
        found += _of_file(attempt.log(node), root, str(record.get("host", "")), 0)
    facts = attempt.facts()
    sizes: Mapping[str, int] = facts.get("job_logs", {})
    for file in job_logs(RunPaths(root), str(facts.get("job", ""))):
        found += _of_file(file, root, "", sizes.get(file.name, 0))
    return sorted(found, key=lambda seen: seen.match.rank)


def job_logs(paths: RunPaths, job: str) -> list[Path]:
    """Return the logs of a job's script and of the processes that it starts."""
    return sorted(paths.jobs.glob(f"{job}_*log.*")) if job else []


def sizes_of_job_logs(paths: RunPaths, job: str) -> dict[str, int]:
    """Return how long a job's logs are; a job that is queued again adds to them."""
    return {file.name: file.stat().st_size for file in job_logs(paths, job)}


def _of_file(file: Path, root: Path, host: str, start: int) -> list[Seen]:
    try:
        with file.open("rb") as handle:
            begin = max(start, file.stat().st_size - TAIL_BYTES, 0)
            handle.seek(begin)
            text = handle.read().decode("utf-8", "backslashreplace")
            found = search.matches(text)
            before = _lines_before(file, begin) if found else 0
    except OSError:
        return []
    name = str(file.relative_to(root))
    return [
        Seen(Match(match.cause, before + match.line, match.text, name), host) for match in found
    ]


def _lines_before(file: Path, end: int) -> int:
    count, left = 0, end
    with file.open("rb") as handle:
        while left and (block := handle.read(min(left, 1 << 20))):
            count += block.count(b"\n")
            left -= len(block)
    return count
