"""Whether a training can succeed, from its figures so far: checks with numbers, causes, remedies.

Each check looks for one way in which trainings of this kind were lost: a component of the loss
that outweighs all others, a loss that does not fall, a warm-up that does not end, gradients that
are always cut, scans that are learned by heart, data that come too slowly.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from giblet_hpc.config.run import RunConfig
from giblet_hpc.findings import Finding

MILESTONES = (0.1, 0.2, 0.5)
"""Shares of the first epoch's loss."""
SURE = 2.0
"""Standard errors by which a figure has to be beyond its limit."""
Row = Mapping[str, Any]
"""A line of metrics.jsonl: ``kind``, ``step``, ``epoch`` and figures."""


class Health:
    """A training's figures so far.

    Parameters
    ----------
    config : RunConfig
    rows : sequence of Row
    total_steps : int
        Of the whole training.
    step_seconds : float
        Median of the last steps; 0 where it is not known.
    data_wait : float
        Share of a step spent waiting for data.
    """

    def __init__(
        self,
        config: RunConfig,
        rows: Sequence[Row],
        *,
        total_steps: int,
        step_seconds: float = 0.0,
        data_wait: float = 0.0,
    ) -> None:
        self.config, self.limits = config, config.health
        self.train = [row for row in rows if row["kind"] == "train"]
        self.validation = [row for row in rows if row["kind"] == "validation"]
        self.total_steps = max(1, total_steps)
        self.step_seconds, self.data_wait = step_seconds, data_wait
        self.warmup = config.train.warmup_epochs

    def findings(self) -> list[Finding]:
        """Return what each check sees; those that have nothing to look at yet are skipped."""
        checks: list[Callable[[], Finding]] = [
            self.shares, self.scans, self.fall, self.warm_up, self.length, self.clipping,
            self.gap, self.correlation, self.waiting, self.gpus,
        ]  # fmt: skip
        return [check() for check in checks]

    def shares(self) -> Finding:
        """Look for a component that outweighs all others."""
        name = "component shares"
        if not self.train:
            return _later(name)
        parts = {key: value for key, value in self.train[-1].items() if key.startswith("loss/")}
        total = sum(abs(value) for value in parts.values()) or 1.0
        shares = {key.removeprefix("loss/"): abs(v) / total for key, v in parts.items()}
        largest = max(shares, key=shares.__getitem__)
        shown = ", ".join(f"{key} {100 * share:.3g} %" for key, share in shares.items())
        if len(shares) > 1 and shares[largest] > self.limits.largest_share:
            return Finding(
                name, "fail", f"{largest} is {100 * shares[largest]:.5g} % of the loss: {shown}",
                "loss.normalise: variance puts all errors into units of their own variance; or "
                f"lower the weight of {largest}, or loss.balance: gradient",
            )  # fmt: skip
        return Finding(name, "ok", shown)

    def scans(self) -> Finding:
        """Look whether the scans have a say at the bottleneck."""
        name = "gradient of the scans"
        known = [row["gradient_share/fmri"] for row in self.train if "gradient_share/fmri" in row]
        if not known or not self.config.loss.fmri_weight:
            return _later(name)
        share = statistics.median(known[-10:])
        seen = f"{100 * share:.3g} % of the gradient at the bottleneck"
        if share < self.limits.smallest_scan_share:
            return Finding(
                name, "fail", seen, "lower loss.reconstruction_weight, or loss.balance: gradient"
            )
        return Finding(name, "ok", seen)

    def fall(self) -> Finding:
        """Look whether the loss falls, once the learning rate is up."""
        name = "fall of the loss"
        after = [row for row in self.train if row["epoch"] >= self.warmup]
        epochs = self.train[-1]["epoch"] if self.train else 0.0
        if len(self.train) < 4 or not after or epochs < self.warmup + self.limits.fall_epochs:
            return _later(name)
        quarter = max(1, len(self.train) // 4)
        early, late = (
            [row["loss"] for row in rows if math.isfinite(row["loss"])]
            for rows in (self.train[:quarter], self.train[-quarter:])
        )
        if not early or not late:
            return Finding(name, "fail", "losses are not finite", "a lower train.lr")
        first, last = statistics.mean(early), statistics.mean(late)
        share = (first - last) / abs(first) if first else 0.0
        seen = f"{100 * share:.3g} % in {epochs:.3g} epochs ({first:.4g} to {last:.4g})"
        if by := ", ".join(
            f"{100 * part:g} % by epoch {e}" for part, e in falls(self.train).items()
        ):
            seen += f"; {by}"
        # Losses of single batches scatter: only a fall that is too small beyond that counts.
        doubt = SURE * math.hypot(_error(early), _error(late)) / abs(first) if first else 0.0
        if share < self.limits.smallest_fall < share + doubt:
            return Finding(name, "skipped", f"{seen}, give or take {100 * doubt:.2g} %")
        if share < self.limits.smallest_fall:
            return Finding(
                name, "fail", seen,
                "see component shares and gradient norm: what is not scaled is not learned; else a "
                "higher train.lr, or fewer train.warmup_epochs",
            )  # fmt: skip
        return Finding(name, "ok", seen)

    def warm_up(self) -> Finding:
        """Look whether the warm-up leaves time to train."""
        steps = self.total_steps * self.warmup / self.config.train.epochs
        share = self.warmup / self.config.train.epochs
        hours = steps * self.step_seconds / 3600
        seen = f"{self.warmup:g} of {self.config.train.epochs} epochs, {steps:.0f} steps"
        seen += f", {hours:.1f} h at this pace" if self.step_seconds else ""
        slow = hours > self.limits.warmup_hours
        if share > self.limits.warmup_share or slow:
            return Finding("warm-up", "fail" if slow else "warn", seen,
                           "fewer train.warmup_epochs")  # fmt: skip
        return Finding("warm-up", "ok", seen)

    def length(self) -> Finding:
        """Look whether there are steps enough to learn in."""
        seen = f"{self.total_steps} steps in all"
        if self.total_steps < self.limits.fewest_steps:
            return Finding("length", "warn", seen, "more train.epochs, or a lower "
                           "train.batch_windows or train.window_trs")  # fmt: skip
        return Finding("length", "ok", seen)

    def clipping(self) -> Finding:
        """Look for gradients that are zero, or always cut."""
        name = "gradient norm"
        norms = [row["gradient_norm"] for row in self.train[-20:] if "gradient_norm" in row]
        if not norms:
            return _later(name)
        middle, limit = statistics.median(norms), self.config.train.clip
        seen = f"{middle:.3g} (cut at {limit:g})"
        if not middle > 0:
            return Finding(name, "fail", seen, "nothing is learned: is every weight of the loss 0?")
        if middle > self.limits.clipped_times * limit:
            return Finding(
                name, "fail", f"{seen}: steps are as long as train.clip allows, whatever the error",
                "loss.normalise: variance; else a higher train.clip",
            )  # fmt: skip
        return Finding(name, "ok", seen)

    def gap(self) -> Finding:
        """Look for scans that are learned by heart."""
        name = "validation"
        if len(self.validation) < 2 or "fmri_error" not in self.validation[-1]:
            return _later(name)
        errors = [row["fmri_error"] for row in self.validation]
        best = min(errors)
        epoch = self.validation[errors.index(best)]["epoch"]
        seen = f"error {errors[-1]:.4g}; best {best:.4g} at epoch {epoch:.3g}"
        if errors[-1] > best * (1 + self.limits.largest_rise):
            return Finding(
                name, "warn", f"{seen}: it has risen since",
                "evaluation takes the best; train.patience stops in time; a higher "
                "train.weight_decay or model.temporal.dropout delays it",
            )  # fmt: skip
        return Finding(name, "ok", seen)

    def correlation(self) -> Finding:
        """Look whether anything of the scans is predicted."""
        name = "r of validation"
        late = [row for row in self.validation if row["epoch"] >= self.warmup + 1 and "r" in row]
        if len(late) < self.limits.r_validations:
            return _later(name)
        values = [row["r"] for row in late]
        best = max(late, key=lambda row: row["r"])
        seen = f"{values[-1]:.3f}; best {best['r']:.3f} at epoch {best['epoch']:.3g}"
        if best["r"] < self.limits.smallest_r:
            return Finding(
                name, "fail", f"{seen}: what an unrelated prediction reaches too",
                "`giblet-hpc inspect alignment` looks whether stimulus and scans fit in time; "
                "bold.shifted_trs, bold.detrend, film_start",
            )  # fmt: skip
        return Finding(name, "ok", seen)

    def waiting(self) -> Finding:
        """Look whether data come in time."""
        if not self.step_seconds:
            return _later("data")
        seen = f"{100 * self.data_wait:.2g} % of each step is waiting for data"
        if self.data_wait > self.limits.largest_wait:
            return Finding("data", "warn", seen,
                           "more memory_gb_per_node, or a TMPDIR on a local disk")  # fmt: skip
        return Finding("data", "ok", seen)

    def gpus(self) -> Finding:
        """Look whether GPUs are used, and cool."""
        rows = [r for r in self.train[-20:] if any(key.startswith("gpu/") for key in r)]
        if not rows:
            return Finding("GPUs", "skipped", "no figures of GPUs")
        busy = [v for r in rows for k, v in r.items() if k.endswith("/percent_busy")]
        heat = [v for r in rows for k, v in r.items() if k.endswith("/celsius")]
        seen = f"{statistics.mean(busy):.0f} % busy" if busy else "busy: not known"
        seen += f", {max(heat):.0f} degrees at most" if heat else ""
        if heat and max(heat) > self.limits.hottest:
            return Finding("GPUs", "warn", seen, "tell the admin: a GPU this hot slows down")
        if busy and statistics.mean(busy) < self.limits.least_busy:
            return Finding("GPUs", "warn", seen, "fewer GPUs, or a larger train.batch_windows")
        return Finding("GPUs", "ok", seen)


def falls(rows: Sequence[Row]) -> dict[float, int]:
    """Return by which epoch the mean loss of an epoch had fallen by 10, 20 and 50 %.

    Parameters
    ----------
    rows : sequence of Row
        Of training.

    Returns
    -------
    dict of float to int
        Epoch by share, of those that were reached.
    """
    every: dict[int, list[float]] = {}
    for row in rows:
        if math.isfinite(row["loss"]):
            every.setdefault(math.ceil(row["epoch"]), []).append(row["loss"])
    means = {epoch: statistics.mean(values) for epoch, values in sorted(every.items())}
    first = next(iter(means.values()), 0.0)
    reached = {
        share: next((epoch for epoch, mean in means.items() if mean <= (1 - share) * first), None)
        for share in MILESTONES
    }
    return {share: epoch for share, epoch in reached.items() if epoch is not None and first > 0}


def _error(values: Sequence[float]) -> float:
    """Return the standard error of a mean; of a single value it is not known."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf


def _later(name: str) -> Finding:
    return Finding(name, "skipped", "too early to say")


def epoch_table(rows: Sequence[Row]) -> list[dict[str, float]]:
    """Return a row for each validation: epoch, the loss since the last one, error, r, rate."""
    table: list[dict[str, float]] = []
    since: list[Row] = []
    for row in rows:
        if row["kind"] == "train":
            since.append(row)
            continue
        last = since[-1] if since else {}
        table.append({
            "epoch": row["epoch"],
            "step": row["step"],
            **({"loss": statistics.mean(r["loss"] for r in since)} if since else {}),
            **{key: row[key] for key in ("fmri_error", "r") if key in row},
            **({"lr": last["lr"]} if "lr" in last else {}),
        })  # fmt: skip
        since = []
    return table
