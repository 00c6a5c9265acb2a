"""The files of one attempt: every name, and who writes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RENDEZVOUS = "rendezvous.json"


@dataclass(frozen=True)
class AttemptPaths:
    """Names of all files of one attempt.

    Parameters
    ----------
    root : Path
        `attempts/N` of a run.
    """

    root: Path

    @property
    def job(self) -> Path:
        """What was started where, and the outcome. By node 0's supervisor, then the epilogue."""
        return self.root / "job.json"

    def node(self, number: int) -> Path:
        """A node's supervisor: its host, its end. Its modification time is the heartbeat."""
        return self.root / f"node-{number}.json"

    def log(self, node: int) -> Path:
        """The output of a node's processes."""
        return self.root / f"node-{node}.log"

    def rank(self, number: int) -> Path:
        """Why a rank failed. By that rank."""
        return self.root / f"rank-{number}.json"

    def collectives(self, number: int) -> Path:
        """What a rank was telling the others when they hung. By that rank."""
        return self.root / f"collectives-rank-{number}.json"

    def agent(self, node: int) -> Path:
        """Which ranks of a node ended first, and how. By the node's torchrun."""
        return self.root / f"agent-{node}.json"

    @property
    def rendezvous(self) -> Path:
        """Where rank 0 listens for those of other nodes, and their key. By rank 0."""
        return self.root / RENDEZVOUS

    @property
    def progress(self) -> Path:
        """Step, phase and pace. By rank 0."""
        return self.root / "progress.json"

    @property
    def stop(self) -> Path:
        """Why the attempt is asked to stop."""
        return self.root / "STOP"

    @property
    def hung(self) -> Path:
        """Which step took too long."""
        return self.root / "HUNG"
