"""Attempts: one execution of one stage, on one node or several, and what became of it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from giblet_hpc.errors import JobError
from giblet_hpc.files import read_json, write_json
from giblet_hpc.jobs.schedulers.base import Place
from giblet_hpc.runs.attempt_paths import AttemptPaths
from giblet_hpc.runs.paths import RunPaths, Stage

JOIN_SECONDS = 300.0
SILENT_SECONDS = 120.0
ATTEMPT_ENDS = ("walltime", "SIGUSR2")
"""Why a stage was asked to stop: its job's time was up."""
Outcome = Literal["complete", "stopped", "interrupted", "failed", "crashed", "hung", "lost"]


class Attempt:
    """One execution of a stage.

    Parameters
    ----------
    folder : Path
        `attempts/N` of a run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = AttemptPaths(folder)
        self.stop, self.hung = self.files.stop, self.files.hung

    @property
    def number(self) -> int:
        """The attempt's number."""
        return int(self.folder.name)

    def facts(self) -> dict[str, Any]:
        """Return what job.json says; empty before it is written."""
        file = self.files.job
        facts: dict[str, Any] = read_json(file) if file.is_file() else {}
        return facts

    def note(self, **fields: Any) -> None:
        """Add to job.json; for node 0's supervisor and the job's script only."""
        write_json(self.files.job, {**self.facts(), **fields})

    def log(self, node: int) -> Path:
        """Return the name of a node's log."""
        return self.files.log(node)

    def note_node(self, node: int, **fields: Any) -> None:
        """Add to a node's own record, which is also a sign of life."""
        file = self.files.node(node)
        known = read_json(file) if file.is_file() else {}
        write_json(file, {**known, **fields})

    def beat(self, node: int) -> None:
        """Give a sign of life: the modification time of the node's record, and no more."""
        now = time.time()
        os.utime(self.files.node(node), (now, now))

    def nodes(self) -> dict[int, dict[str, Any]]:
        """Return the nodes' records by number; `heartbeat` is when each gave its last sign."""
        return {
            int(file.stem.removeprefix("node-")): {
                **read_json(file),
                "heartbeat": file.stat().st_mtime,
            }
            for file in sorted(self.folder.glob("node-*.json"))
        }

    def agents(self) -> list[dict[str, Any]]:
        """Return what each node's torchrun says of ranks that ended, the first that did first."""
        found = [read_json(file) for file in self.folder.glob("agent-*.json")]
        return sorted(found, key=lambda agent: agent["time"])

    def failures(self) -> list[dict[str, Any]]:
        """Return why ranks failed, the first that did first."""
        found = [read_json(file) for file in self.folder.glob("rank-*.json")]
        return sorted(found, key=lambda failure: failure["time"])

    def silent_hosts(self, now: float) -> list[str]:
        """Return the hosts whose records have no end and an old heartbeat."""
        return [str(record["host"]) for record in self.nodes().values() if is_silent(record, now)]

    def unfinished_hosts(self) -> list[str]:
        """Return the hosts whose records have no end, once all others have ended."""
        return [str(r["host"]) for r in self.nodes().values() if "ended" not in r]

    def close(self, outcome: Outcome, *, reason: str, step: int | None, **more: Any) -> None:
        """Write how the attempt ended."""
        self.note(ended=time.time(), outcome=outcome, reason=reason, step_to=step, **more)


def is_silent(record: Mapping[str, Any], now: float) -> bool:
    """Return whether a node's record has no end and an old sign of life."""
    return "ended" not in record and now - record["heartbeat"] > SILENT_SECONDS


def all_attempts(paths: RunPaths) -> list[Attempt]:
    """Return a run's attempts, oldest first."""
    folders = [p for p in paths.attempts.glob("[0-9]*") if p.name.isdigit()]
    return [Attempt(folder) for folder in sorted(folders, key=lambda p: int(p.name))]


def begin(paths: RunPaths, place: Place, stage: Stage, facts: Mapping[str, Any]) -> Attempt:
    """Make the next numbered attempt, for node 0.

    An earlier attempt of the stage that never ended was killed from outside; it is closed as such.
    """
    for earlier in history(paths, stage, str(facts.get("part", ""))):
        if "ended" not in earlier.facts():
            earlier.close("interrupted", reason="killed from outside, without notice", step=None)
    number = max((attempt.number for attempt in all_attempts(paths)), default=0)
    while True:
        number += 1
        folder = paths.attempt(number).root
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        break
    attempt = Attempt(folder)
    attempt.note(
        stage=stage, key=place.key, job=place.job, scheduler=place.scheduler,
        restart=place.restart, started=time.time(), **facts,
    )  # fmt: skip
    return attempt


def join(paths: RunPaths, place: Place, *, timeout: float = JOIN_SECONDS) -> Attempt:
    """Return the attempt that node 0 of this job began.

    Raises
    ------
    JobError
        When it does not appear: node 0 did not start, or the folder is not shared.
    """
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        attempt = find(paths, place)
        if attempt is not None:
            return attempt
        time.sleep(0.5)
    raise JobError(
        f"node {place.node} ({place.host}) waited {timeout:.0f} s for node 0 ({place.head})",
        hint=f"is {paths.root} on a file system that all nodes share?",
    )


def find(paths: RunPaths, place: Place) -> Attempt | None:
    """Return the newest attempt of this execution of the job, if there is one."""
    for attempt in reversed(all_attempts(paths)):
        if attempt.facts().get("key") == place.key:
            return attempt
    return None


def history(paths: RunPaths, stage: Stage, part: str = "") -> list[Attempt]:
    """Return the attempts of a stage, oldest first."""
    return [
        attempt
        for attempt in all_attempts(paths)
        if attempt.facts().get("stage") == stage and attempt.facts().get("part", "") == part
    ]


def superseded(paths: RunPaths, attempt: Attempt, place: Place) -> bool:
    """Return whether the scheduler has started this job anew, elsewhere or here."""
    return any(
        later.number > attempt.number
        and later.facts().get("job") == place.job
        and later.facts().get("restart", 0) > place.restart
        for later in all_attempts(paths)
    )


@dataclass(frozen=True)
class Spent:
    """How many attempts have ended badly since the last progress.

    Parameters
    ----------
    same : int
        By the cause of the last one.
    every : int
        By any cause.
    causes : tuple of str
        Their names, the last one's first.
    hopeless : bool
        Whether the last one's cause cannot be mended by another attempt.
    """

    same: int
    every: int
    causes: tuple[str, ...]
    hopeless: bool


def without_progress(attempts: Sequence[Attempt]) -> Spent:
    """Return how many attempts were spent since a checkpoint was written last.

    Attempts that were preempted, and those of stages that keep what they finish without
    checkpoints, say nothing of progress when they are asked to stop: they are passed over, so that
    failures between them add up.
    """
    roots: list[str] = []
    for attempt in reversed(attempts):
        facts = attempt.facts()
        if facts.get("outcome") in ("complete", "stopped", "failed"):
            break
        if (facts.get("checkpoint_to") or 0) > (facts.get("checkpoint_from") or 0):
            break
        late = (
            facts.get("stage") == "train"
            and facts.get("outcome") == "interrupted"
            and facts.get("why_asked") in ATTEMPT_ENDS
        )
        if late or facts.get("outcome") in ("crashed", "hung", "lost"):
            roots.append(facts.get("root") or root_of_text(str(facts.get("reason", ""))))
    last = attempts[-1].facts() if attempts else {}
    same = sum(root == roots[0] for root in roots)
    hopeless = bool(roots and last.get("hopeless"))
    return Spent(same, len(roots), tuple(dict.fromkeys(roots)), hopeless)


def root_of_text(reason: str) -> str:
    """Return a name for a cause that no table knows: the same for the same words."""
    return re.sub(r"\d+", "#", reason.partition("\n")[0])[:200]
