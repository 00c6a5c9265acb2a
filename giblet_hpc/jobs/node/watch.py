"""What a supervisor looks at while its stage runs, and when it has to step in."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any, Literal

from giblet_hpc.config.cluster import Cluster
from giblet_hpc.files import read_json, write_text
from giblet_hpc.jobs.record import attempts
from giblet_hpc.jobs.record.attempts import ATTEMPT_ENDS, Attempt, is_silent
from giblet_hpc.jobs.schedulers import registry
from giblet_hpc.jobs.schedulers.base import Place
from giblet_hpc.jobs.schedulers.local import process_state
from giblet_hpc.runs import beacon
from giblet_hpc.runs.paths import RunPaths, Stage

GRACE_SECONDS = 300.0
START_SECONDS = 2.0
STOP_SECONDS = 6.0
HEARTBEAT_SECONDS = 20.0
PEER_FAILED_SECONDS = 30.0
EPILOGUE_SECONDS = 30.0
"""What the job's script needs to queue the job again."""
RECENT = 50
Condition = Literal["fine", "late", "hung", "peer", "superseded"]


class Watch:
    """Keeps an eye on one stage on one node.

    In steady state it costs the shared file system little: node 0 looks for the run's STOP file,
    every node gives a sign of life now and then, node 0 looks at the others' and they at node 0's.
    Ranks are asked to stop on the node's own disk; as they agree at each step, one node is enough.

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
        self._last_stop_look = self._last_look = 0.0
        self._silent_since: float | None = None
        self._progress = Progress(profile)
        self._peers = Peers(attempt, place)
        self._restarts = Restarts(paths, attempt, place)
        self._positions: list[dict[str, Any]] = []

    @property
    def asked(self) -> bool:
        """Whether the stage has been asked to stop."""
        return self._asked_at is not None

    @property
    def hung(self) -> bool:
        """Whether a node has found that ranks hang."""
        return self._attempt.hung.exists()

    def ask_for_trace(self) -> None:
        """Ask this node's ranks to write down their last collectives."""
        beacon.ask_for_trace(self._local)

    def ask(self, why: str) -> None:
        """Ask the stage's ranks, on all nodes, to stop at the next step boundary."""
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            self.why = self.why or why
            if why in ATTEMPT_ENDS:
                # The scheduler kills the job's script too when the walltime is over.
                margin = max(START_SECONDS, self._profile.lead_seconds - EPILOGUE_SECONDS)
                self._grace = min(GRACE_SECONDS, margin)
            beacon.ask_to_stop(self._local)
            write_text(self._attempt.stop, f"{why}\n")

    def look(self) -> Condition:
        """Return whether the stage may go on; most calls only compare two clocks."""
        now = time.monotonic()
        if self._asked_at is not None:
            # What makes no steps, or none yet, has nothing to bring to an end.
            timeout = self._grace if self.ranks() else START_SECONDS
            if now - self._asked_at > timeout:
                return "late"
        self._progress.see(self.ranks())
        if self._place.node == 0 and now - self._last_stop_look > STOP_SECONDS:
            self._last_stop_look = now
            if self._paths.stop.exists():
                self.user_stop = True
                self.ask("asked to stop")
        if self._stage == "train" and not self.asked and (late := self._progress.overdue()):
            write_text(self._attempt.hung, f"{late}\n")
            return "hung"
        # Once something has happened, others are looked at more often: the end is near.
        if now - self._last_look < HEARTBEAT_SECONDS / (10 if self.asked else 1):
            return "fine"
        self._last_look = now
        self._attempt.beat(self._place.node)
        if not registry.of(self._place.scheduler).queues:
            return "fine"
        return "superseded" if self._restarts.later() else self._look_at_peers(now)

    def _look_at_peers(self, now: float) -> Condition:
        """Look at the other nodes of the job."""
        if self._place.nodes == 1:
            return "fine"
        records = self._peers.records()
        lost = any(record.get("code") for record in records)
        # After a stall of the file system all signs of life are old for a moment; and where a
        # node's ranks are gone, ours notice by themselves, or wait for ever.
        if not lost and not any(is_silent(record, time.time()) for record in records):
            self._silent_since = None
        elif self._silent_since is None:
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
            {"rank": rank, "step": step, "place": place, "state": process_state(process)}
            for rank, (process, step, place) in sorted(self.ranks().items())
        ]

    def positions(self) -> list[dict[str, Any]]:
        """Return where the ranks stood when this supervisor stepped in."""
        return self._positions


class Peers:
    """The records of the nodes that this one looks at; each is read again only when it is new.

    Parameters
    ----------
    attempt : Attempt
    place : Place
        Node 0 looks at all others, and they at node 0.
    """

    def __init__(self, attempt: Attempt, place: Place) -> None:
        self._attempt = attempt
        self._nodes = range(1, place.nodes) if place.node == 0 else range(1)
        self._known: dict[int, tuple[tuple[int, int], dict[str, Any]]] = {}

    def records(self) -> list[dict[str, Any]]:
        """Return the records there are, with their signs of life."""
        found = []
        for node in self._nodes:
            file = self._attempt.files.node(node)
            try:
                status = file.stat()
            except FileNotFoundError:
                continue
            key = (status.st_ino, status.st_size)
            if node not in self._known or self._known[node][0] != key:
                self._known[node] = (key, read_json(file))
            found.append({**self._known[node][1], "heartbeat": status.st_mtime})
        return found


class Restarts:
    """Whether the scheduler has started this job anew: the attempts are read when there are more.

    Parameters
    ----------
    paths : RunPaths
    attempt : Attempt
    place : Place
    """

    def __init__(self, paths: RunPaths, attempt: Attempt, place: Place) -> None:
        self._paths, self._attempt, self._place = paths, attempt, place
        self._seen = -1

    def later(self) -> bool:
        """Return whether there is a later attempt of this job."""
        changed = self._paths.attempts.stat().st_mtime_ns
        if changed == self._seen:
            return False
        self._seen = changed
        return attempts.superseded(self._paths, self._attempt, self._place)


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
