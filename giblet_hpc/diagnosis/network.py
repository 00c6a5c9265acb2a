"""A network's layers, by size and work, without its numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from giblet_hpc.config.run import RunConfig
from giblet_hpc.findings import Finding
from giblet_hpc.plans.study_size import StudySize
from giblet_hpc.training.network_size import layers_of

ONE_TENSOR = 0.5
"""Share of all weights in one tensor that is worth a word."""
MANY_WEIGHTS = 1000.0
"""Weights for each TR of training."""
SHOWN = 5


@dataclass(frozen=True)
class NetworkCheck:
    """Looks at the sizes of a config's network.

    Parameters
    ----------
    config : RunConfig
    size : StudySize
    """

    config: RunConfig
    size: StudySize

    def findings(self) -> Iterator[Finding]:
        """Yield what is seen."""
        layers = layers_of(self.config, self.size)
        weights = sum(layer.weights for layer in layers)
        operations = sum(layer.operations for layer in layers)
        a_step = 3 * operations * self.config.train.batch_windows
        moments = {"adamw": 8, "adamw8bit": 2}[self.config.train.optimizer]
        memory = weights * (8 + moments)
        yield Finding(
            "size", "ok",
            f"{weights:,} parameters, {_bytes(4 * weights)}; with gradients and the moments of "
            f"{self.config.train.optimizer} {_bytes(memory)}",
        )  # fmt: skip
        yield Finding("work", "ok", f"{a_step:.3g} operations a step, forward and backward, for "
                      f"{self.config.train.batch_windows} windows")  # fmt: skip
        tensors = self._tensors(layers)
        name, largest = tensors[0]
        seen = ", ".join(f"{one} {count:,}" for one, count in tensors[:SHOWN])
        yield Finding("largest tensors", "ok", seen)
        if largest > ONE_TENSOR * weights:
            yield Finding("largest tensor", "ok", f"{name} has {100 * largest / weights:.0f} % of "
                          "all weights")  # fmt: skip
        yield from self._beside_the_study(weights)

    def _beside_the_study(self, weights: int) -> Iterator[Finding]:
        trs = max(1, self.size.trs)
        outputs = self.size.subjects * self.size.voxels
        seen = f"{weights / trs:,.0f} weights for each of {trs:,} TRs; {outputs:,} outputs"
        if weights > MANY_WEIGHTS * outputs:
            yield Finding(
                "beside the study", "warn", f"{seen}, {weights / outputs:,.0f} weights for each",
                "a narrower network learns less by heart: model.width, or model.kind: temporal",
            )  # fmt: skip
        else:
            yield Finding("beside the study", "ok", seen)

    @staticmethod
    def _tensors(layers: list[Any]) -> list[tuple[str, int]]:
        every = [
            (f"{layer.name}.{name}", math.prod(shape))
            for layer in layers
            for name, shape in layer.tensors.items()
        ]
        return sorted(every, key=lambda one: -one[1])

    def facts(self) -> dict[str, Any]:
        """Return the figures of each layer."""
        return {"layers": [asdict(layer) for layer in layers_of(self.config, self.size)],
                "assumed": dict(self.size.assumed)}  # fmt: skip


def table(layers: list[Mapping[str, Any]]) -> str:
    """Return a line for each layer: kind, output, weights, operations of a window."""
    width = max(len(layer["name"]) for layer in layers)
    lines = [f"{'layer':<{width}}  {'kind':<22}{'output':<26}{'weights':>15}{'operations':>12}"]
    for layer in layers:
        output = " x ".join(map(str, layer["output"])) or "-"
        lines.append(
            f"{layer['name']:<{width}}  {layer['kind']:<22}{output:<26}{layer['weights']:>15,}"
            f"{layer['operations']:>12.3g}"
        )
    return "\n".join(lines)


def _bytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
