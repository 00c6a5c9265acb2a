"""What training should need of memory, beside what a run was seen to need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from giblet_hpc.findings import Finding
from giblet_hpc.plans.hardware import GIB, Place
from giblet_hpc.training.planner import Estimate

FAR = 1.25
"""By how much a measurement may exceed the plan."""


@dataclass(frozen=True)
class MemoryCheck:
    """Compares the plan of one mode with measurements.

    Parameters
    ----------
    estimate : Estimate
        Of the mode that is used.
    place : Place, optional
        The GPUs; None where the profile has none.
    gpu_bytes : float
        The most that a GPU held in training; 0 where it was not measured.
    node_bytes : float
        The most that a node's processes held in training; 0 where it was not measured.
    asked_gib : float, optional
        Memory that training's job asked for on each node.
    """

    estimate: Estimate
    place: Place | None
    gpu_bytes: float
    node_bytes: float
    asked_gib: float | None

    def findings(self) -> Iterator[Finding]:
        """Yield what is planned and what was measured."""
        estimate = self.estimate
        parts = ", ".join(f"{name} {_gib(value)}" for name, value in estimate.memory.items())
        seen = f"{estimate.mode}: {_gib(estimate.gpu_bytes)} GiB planned ({parts})"
        yield self._compared("GPU", seen, estimate.gpu_bytes, self.gpu_bytes)
        node = sum(estimate.node_memory.values())
        parts = ", ".join(f"{name} {_gib(value)}" for name, value in estimate.node_memory.items())
        yield self._compared("node", f"{_gib(node)} GiB planned ({parts})", node, self.node_bytes)
        if self.place is not None and estimate.gpu_bytes > self.place.gpu.memory * GIB:
            yield Finding(
                "room", "fail", f"a GPU has {self.place.gpu.memory:g} GiB",
                "more GPUs, model.recompute, a lower train.batch_windows with more "
                "train.accumulation: `giblet-hpc plan` compares the modes",
            )  # fmt: skip
        if self.node_bytes and self.asked_gib:
            share = self.node_bytes / GIB / self.asked_gib
            seen = f"{_gib(self.node_bytes)} of {self.asked_gib:g} GiB asked for were used"
            yield Finding("asked", "warn" if share > 0.95 else "ok", seen,
                          "raise memory_gb_per_node" if share > 0.95 else "")  # fmt: skip

    @staticmethod
    def _compared(check: str, seen: str, planned: float, measured: float) -> Finding:
        if not measured:
            return Finding(check, "ok", f"{seen}; not measured yet")
        seen = f"{seen}; {_gib(measured)} GiB measured"
        if measured > FAR * planned:
            return Finding(check, "warn", f"{seen}: more than planned",
                           "train.profile records a memory snapshot of some steps")  # fmt: skip
        return Finding(check, "ok", seen)

    def facts(self) -> dict[str, Any]:
        """Return all figures, in bytes."""
        measured: Mapping[str, float | None] = {
            "gpu_bytes": self.gpu_bytes or None,
            "node_bytes": self.node_bytes or None,
        }
        return {"plan": asdict(self.estimate), "measured": measured, "asked_gib": self.asked_gib}


def _gib(count: float) -> str:
    return f"{count / GIB:.3g}"
