"""What a supervisor looks at while its stage runs, and when it has to step in."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any, Literal

from giblet_hpc import beacon
from giblet_hpc.jobs import attempts, child
from giblet_hpc.jobs.attempts import ATTEMPT_ENDS, Attempt, Place
from giblet_hpc.jobs.cluster import Cluster
from giblet_hpc.runs import RunPaths, Stage

GRACE_SECONDS = 300.0
START_SECONDS = 2.0
HEARTBEAT_SECONDS = 5.0
PEER_FAILED_SECONDS = 30.0
SETTLE_SECONDS = 30.0
"""What the job's script needs to queue the job again."""
RECENT = 50
Verdict = Literal["fine", "late", "hung", "peer", "superseded"]


class Watch:
    """Keeps an eye on one stage on one node.

    Parameters
    ----------
    paths : RunPaths
    stage : str
    attempt : Attempt
    place : Place
    profile : Cluster
    local : Path
        Folder on this node's disk in which ranks show how far they are.
    """

    def __init__(
        self,
        paths: RunPaths,
        stage: Stage,
        attempt: Attempt,
        *,
        place: Place,
        profile: Cluster,
        local: Path,
    ) -> None:
        self._paths, self._stage, self._attempt = paths, stage, attempt
        self._place, self._profile, self._local = place, profile, local
        self.why = ""
        self.user_stop = False
        self._grace = GRACE_SECONDS
        self._asked_at: float | None = None
        self._last_look = 0.0
        self._peer_ended_at: float | None = None
        self._silent_since: float | None = None
        self._progress = Progress(profile)
        self._positions: list[dict[str, Any]] = []

    @property
    def asked(self) -> bool:
        """Whether the stage has been asked to stop."""
        return self._asked_at is not None

    def ask(self, why: str) -> None:
        """Ask the stage's ranks, on all nodes, to stop at the next step boundary."""
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            self.why = self.why or why
            if why in ATTEMPT_ENDS:
                # Slurm kills the job's script too when the walltime is over.
                margin = max(START_SECONDS, self._profile.lead_seconds - SETTLE_SECONDS)
                self._grace = min(GRACE_SECONDS, margin)
            self._attempt.stop.write_text(f"{why}\n")

    def look(self) -> Verdict:
        """Return whether the stage may go on; most calls only compare two clocks."""
        now = time.monotonic()
        if self._asked_at is not None:
            # What makes no steps, or none yet, has nothing to bring to an end.
            patience = self._grace if self.ranks() else START_SECONDS
            if now - self._asked_at > patience:
                return "late"
        self._progress.see(self.ranks())
        if now - self._last_look < HEARTBEAT_SECONDS / (5 if self.asked else 2.5):
            return "fine"
        self._last_look = now
        self._attempt.note_node(self._place.node)
        self._notice_stop_files()
        if self._attempt.hung.exists():
            return "hung"
        if self._stage == "train" and not self.asked and (late := self._progress.overdue()):
            self._attempt.hung.write_text(f"{late}\n")
            return "hung"
        if self._place.scheduler == "slurm":
            return self._look_around(now)
        return "fine"

    def _notice_stop_files(self) -> None:
        if self._paths.stop.exists():
            self.user_stop = True
            self.ask("asked to stop")
        elif self._attempt.stop.exists():
            self.ask(self._attempt.stop.read_text().strip())

    def _look_around(self, now: float) -> Verdict:
        """Look at the other nodes of the job."""
        if attempts.superseded(self._paths, self._attempt, self._place):
            return "superseded"
        if self._place.nodes == 1:
            return "fine"
        records = self._attempt.nodes()
        if any(record.get("code") for record in records.values()):
            # Its ranks are gone; ours notice by themselves, or wait for ever.
            self._peer_ended_at = self._peer_ended_at or now
            if now - self._peer_ended_at > PEER_FAILED_SECONDS:
                return "peer"
        if not self._attempt.silent_hosts(time.time()):
            self._silent_since = None
        elif self._silent_since is None:
            # After a stall of the file system all heartbeats are old for a moment.
            self._silent_since = now
        elif now - self._silent_since > PEER_FAILED_SECONDS:
            return "peer"
        return "fine"

    def ranks(self) -> dict[int, tuple[int, int, str]]:
        """Return each rank of this node: its process, step and place in the step."""
        return beacon.read(self._local)

    def remember_positions(self) -> None:
        """Note where the ranks stand before they are ended."""
        self._positions = [
            {"rank": rank, "step": step, "place": place, "state": child.state_of(process)}
            for rank, (process, step, place) in sorted(self.ranks().items())
        ]

    def positions(self) -> list[dict[str, Any]]:
        """Return where the ranks stood when this supervisor stepped in."""
        return self._positions


class Progress:
    """Judges by the pace so far whether a step is overdue.

    Parameters
    ----------
    profile : Cluster
    """

    def __init__(self, profile: Cluster) -> None:
        self._profile = profile
        self._step = -1
        self._last = time.monotonic()
        self._durations: list[float] = []

    def see(self, ranks: dict[int, tuple[int, int, str]]) -> None:
        """Take note of the ranks' positions."""
        step = max((step for _, step, _ in ranks.values()), default=-1)
        now = time.monotonic()
        if step == self._step:
            return
        # Each fold counts its steps from 0 again.
        if step > self._step >= 0:
            self._durations.append((now - self._last) / (step - self._step))
            del self._durations[:-RECENT]
        self._step, self._last = step, now

    def overdue(self) -> str:
        """Return in words what is overdue; empty when nothing is."""
        waited = time.monotonic() - self._last
        if not self._durations:
            limit = self._profile.start_seconds
            return f"no first step within {limit:.0f} s" if waited > limit else ""
        median = statistics.median(self._durations)
        limit = max(self._profile.hang_factor * median, self._profile.hang_seconds)
        if waited <= limit:
            return ""
        return f"no step for {waited:.0f} s after step {self._step}; the median is {median:.2f} s"
