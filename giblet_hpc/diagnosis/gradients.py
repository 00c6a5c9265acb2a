"""Gradients of each component of the loss: how large, where, and whether they agree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import torch

from giblet_hpc.findings import Finding
from giblet_hpc.training.losses import Losses
from giblet_hpc.training.predictor import Predictor
from giblet_hpc.training.windows import Window

VANISHING = 1e-5
EXPLODING = 1e4
"""A layer's root mean square gradient beside the median layer's."""
AGAINST = -0.3
"""Mean cosine of two components' gradients below which they undo each other."""
UNHEARD = 0.01
"""A component's share of the gradient at the bottleneck."""


class Gradients:
    """Measures gradients over some batches.

    Parameters
    ----------
    predictor : Predictor
        With the weights to look at.
    losses : Losses
    batches : sequence of sequence of Window
    step : int
        Of the checkpoint; 0 for weights as they are drawn.
    """

    def __init__(
        self,
        predictor: Predictor,
        losses: Losses,
        batches: Sequence[Sequence[Window]],
        *,
        step: int,
    ) -> None:
        self._predictor, self._losses, self.step = predictor, losses, step
        self._names = [name for name, _ in predictor.model.named_parameters()]
        self.components: dict[str, list[float]] = {}
        self.norms: dict[str, list[float]] = {}
        self.cosines: dict[str, list[float]] = {}
        self._squares: dict[str, float] = dict.fromkeys(self._layers(), 0.0)
        self._batches = len(batches)
        predictor.model.train()
        for number, windows in enumerate(batches):
            self._measure(windows, number)

    def _layers(self) -> list[str]:
        return list(dict.fromkeys(name.rpartition(".")[0] for name in self._names))

    def _measure(self, windows: Sequence[Window], number: int) -> None:
        model, predictor = self._predictor.model, self._predictor
        batch, positions = predictor.reader(windows), predictor.positions(number)
        output = predictor.forward(model, batch, positions)
        components = self._losses.components(output, batch, positions)
        found = {}
        for name, component in components.items():
            self.components.setdefault(name, []).append(float(component.detach()))
            if component.requires_grad:
                gradient = torch.autograd.grad(
                    component, output.bottleneck, retain_graph=True, allow_unused=True
                )[0]
                if gradient is not None:
                    found[name] = gradient.float().flatten()
        for name, gradient in found.items():
            self.norms.setdefault(name, []).append(float(gradient.norm()))
        for (one, first), (other, second) in combinations(found.items(), 2):
            cosine = torch.nn.functional.cosine_similarity(first, second, dim=0)
            self.cosines.setdefault(f"{one} and {other}", []).append(float(cosine))
        total = torch.stack(list(components.values())).sum()
        parameters = [p for p in model.parameters() if p.requires_grad]
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        for name, gradient in zip(
            names, torch.autograd.grad(total, parameters, allow_unused=True), strict=True
        ):
            if gradient is not None:
                square = float(gradient.double().square().sum())
                self._squares[name.rpartition(".")[0]] += square

    def facts(self) -> dict[str, Any]:
        """Return the figures: means over the batches, and each layer's root mean square."""
        return {
            "step": self.step,
            "batches": self._batches,
            "components": _means(self.components),
            "norms": _means(self.norms),
            "cosines": _means(self.cosines),
            "layers": self._root_mean_squares(),
        }

    def _root_mean_squares(self) -> dict[str, float]:
        sizes = dict.fromkeys(self._squares, 0)
        for name, parameter in self._predictor.model.named_parameters():
            sizes[name.rpartition(".")[0]] += parameter.numel()
        count = max(1, self._batches)
        return {name: math.sqrt(self._squares[name] / count / sizes[name]) for name in sizes}

    def findings(self) -> Iterator[Finding]:
        """Yield what is seen: shares, agreement, layers."""
        yield self._shares()
        yield self._agreement()
        yield from self._depth()

    def _shares(self) -> Finding:
        norms = _means(self.norms)
        total = sum(norms.values())
        values = _means(self.components)
        shown = ", ".join(
            f"{name} {100 * norm / total if total else 0:.3g} % (loss {values[name]:.3g})"
            for name, norm in norms.items()
        )
        seen = f"at the bottleneck: {shown}"
        if not total or not math.isfinite(total):
            return Finding("components", "fail", f"{seen}: no finite gradient",
                           "inspect data looks for what is not a number; else a lower "
                           "train.lr")  # fmt: skip
        unheard = [name for name, norm in norms.items() if norm < UNHEARD * total]
        if "fmri" in unheard:
            return Finding(
                "components", "fail", f"{seen}: the scans do not count",
                "loss.balance: gradient, or a lower loss.reconstruction_weight",
            )  # fmt: skip
        return Finding("components", "ok", seen)

    def _agreement(self) -> Finding:
        cosines = _means(self.cosines)
        seen = ", ".join(f"{pair} {value:+.2f}" for pair, value in cosines.items())
        seen = f"cosines: {seen}" if seen else "one component alone"
        against = [pair for pair, value in cosines.items() if value < AGAINST]
        if against:
            return Finding(
                "agreement", "warn", f"{seen}: {', '.join(against)} undo each other",
                "a wider model.bottleneck, or a lower weight of one",
            )  # fmt: skip
        return Finding("agreement", "ok", seen)

    def _depth(self) -> Iterator[Finding]:
        layers = self._root_mean_squares()
        known = sorted(value for value in layers.values() if value > 0)
        middle = known[len(known) // 2] if known else 0.0
        bad = 0
        for name, value in layers.items():
            times = value / middle if middle else 0.0
            if not math.isfinite(value) or times > EXPLODING:
                bad += 1
                yield Finding(f"layer {name}", "fail", f"gradient {value:.3g}, {times:.3g} times "
                              "the median layer's: it explodes", "a lower train.lr and train.clip, "
                              "and norms before this layer")  # fmt: skip
            elif value == 0 and self._matters(name):
                bad += 1
                yield Finding(f"layer {name}", "warn", "no gradient reaches it",
                              "is its part of the loss weighted above 0?")  # fmt: skip
            elif 0 < times < VANISHING:
                bad += 1
                yield Finding(f"layer {name}", "warn", f"gradient {value:.3g}, {times:.3g} times "
                              "the median layer's: it vanishes",
                              "fewer layers before it, or a norm between them")  # fmt: skip
        if not bad:
            yield Finding("layers", "ok", f"{len(layers)} layers, root mean square gradient "
                          f"{known[0]:.2g} to {known[-1]:.2g}")  # fmt: skip

    def _matters(self, name: str) -> bool:
        """Whether a layer of a modality is used: one without weight in the loss is not."""
        return not any(
            f".{part}." in f".{name}." and not weight
            for part, weight in self._losses.weights.items()
        )


def _means(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: sum(found) / len(found) for name, found in values.items()}
