"""A live view of runs: curves, pace, GPUs and last events of each, drawn anew every few seconds."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from giblet_hpc.jobs.inspect import status
from giblet_hpc.jobs.record import attempts
from giblet_hpc.printable import printable
from giblet_hpc.runs import figures
from giblet_hpc.runs.paths import STAGES, RunPaths

BLOCKS = "▁▂▃▄▅▆▇█"
CURVES = {"loss": "train", "fmri_error": "validation", "r": "validation"}
"""What is drawn, and the kind of row that has it."""
EVENTS = 4
COLOURS = {"running": "green", "complete": "cyan", "failed": "red", "interrupted": "yellow",
           "stopped": "yellow"}  # fmt: skip
LIVE = ("running", "queued", "stopping")


def sparkline(values: Sequence[float], width: int) -> str:
    """Return a curve of at most ``width`` characters: each is the mean of its share of values.

    Examples
    --------
    >>> sparkline([1, 2, 3, 4, 5, 6, 7, 8], 8)
    '▁▂▃▄▅▆▇█'
    >>> sparkline([3, 3], 8)
    '▁▁'
    """
    if not values or width < 1:
        return ""
    count = min(width, len(values))
    edges = [len(values) * part // count for part in range(count + 1)]
    means = [statistics.fmean(values[a:b]) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    step = (high - low) / (len(BLOCKS) - 1)
    return "".join(BLOCKS[round((mean - low) / step) if step else 0] for mean in means)


def view(paths: RunPaths) -> dict[str, Any]:
    """Return what is shown of a run: its standing, its curves, its GPUs, its last events."""
    facts = status.describe_safely(paths)
    if "error" in facts:
        return facts
    curves: dict[str, dict[str, list[float]]] = {}
    gpus: dict[str, float] = {}
    for fold, file in figures.files(paths).items():
        rows = figures.rows(file)
        curves[fold] = {
            name: [
                row[name]
                for row in rows
                if row["kind"] == kind and math.isfinite(row.get(name, math.nan))
            ]
            for name, kind in CURVES.items()
        }
        trained = [row for row in rows if row["kind"] == "train"]
        gpus = _gpus(trained[-1]) if trained else {}
    return {**facts, "curves": curves, "gpus": gpus, "events": events(paths)}


def _gpus(row: Mapping[str, Any]) -> dict[str, float]:
    """Return means over the GPUs of the last figures."""
    found: dict[str, list[float]] = {}
    for key, value in row.items():
        if key.startswith("gpu/"):
            found.setdefault(key.rpartition("/")[2], []).append(value)
    return {name: statistics.fmean(values) for name, values in found.items()}


def events(paths: RunPaths) -> list[str]:
    """Return the begins and ends of the last attempts, the newest last."""
    found, counts = [], Counter[str]()
    for attempt in attempts.all_attempts(paths):
        facts = attempt.facts()
        part = f" {facts['part']}" if facts.get("part") else ""
        what = f"{facts.get('stage', '')}{part}"
        # Numbers of attempts count through all stages.
        counts[what] += 1
        what += f", attempt {counts[what]}"
        if "started" in facts:
            nodes = f" on {facts.get('nodes', 1)} nodes" if facts.get("nodes", 1) > 1 else ""
            found.append((facts["started"], f"{what}: began{nodes}"))
        if "ended" in facts:
            reason = str(facts.get("reason", "")).partition("\n")[0]
            ended = f"{what}: {facts.get('outcome', 'ended')}"
            found.append((facts["ended"], f"{ended}: {reason}" if reason else ended))
    return [
        f"{datetime.fromtimestamp(when).strftime('%H:%M:%S')} {text}"
        for when, text in sorted(found)[-EVENTS:]
    ]


def lines(shown: Mapping[str, Any]) -> list[str]:
    """Return a run in plain lines, a short one for each thing that changes."""
    if "error" in shown:
        return [f"{shown['run']}: {shown['error']}"]
    found = []
    for stage in STAGES:
        state = shown["stages"][stage]
        detail = "; ".join(filter(None, status.details(state)))
        found.append(f"{shown['run']} {stage}: {state['status']}{f'; {detail}' if detail else ''}")
    for fold, curves in shown["curves"].items():
        last = ", ".join(f"{name} {values[-1]:.4g}" for name, values in curves.items() if values)
        if last:
            found.append(f"{shown['run']} {fold or 'figures'}: {last}")
    return found


def panel(shown: Mapping[str, Any], width: int) -> RenderableType:
    """Return a run as a framed block for a terminal of some width."""
    title = Text(printable(shown["run"]), style="bold")
    if "error" in shown:
        return Panel(Text(printable(shown["error"]), style="red"), title=title)
    parts: list[RenderableType] = [_stages(shown)]
    train = shown["stages"]["train"]
    if train.get("total_steps"):
        done = min(train.get("step", 0), train["total_steps"])
        bar = Table.grid()
        # A bar of its own would not end its line.
        bar.add_row(ProgressBar(total=train["total_steps"], completed=done, width=width - 4))
        parts.append(bar)
    parts += [
        _curves(fold, curves, width)
        for fold, curves in shown["curves"].items()
        if any(curves.values())
    ]
    if shown["gpus"]:
        known = ", ".join(f"{name.replace('_', ' ')} {value:.0f}" for name, value in
                          sorted(shown["gpus"].items()))  # fmt: skip
        parts.append(Text(printable(f"GPUs: {known}")))
    for one in train.get("health") or ():
        parts.append(Text(printable(f"unhealthy: {one}"), style="red"))
    parts += [Text(printable(line), style="dim") for line in shown["events"]]
    if shown["next"]:
        parts.append(Text(f"next: {printable(shown['next'])}"))
    return Panel(Group(*parts), title=title)


def _stages(shown: Mapping[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    for stage in STAGES:
        state = shown["stages"][stage]
        detail = printable("; ".join(filter(None, status.details(state))))
        style = COLOURS.get(state["status"], "default")
        table.add_row(stage, Text(printable(state["status"]), style=style), Text(detail))
    return table


def _curves(fold: str, curves: Mapping[str, Sequence[float]], width: int) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, values in curves.items():
        if values:
            label = Text(printable(f"{fold} {name}".strip()))
            table.add_row(label, sparkline(values, max(8, width - 44)), f"{values[-1]:.4g}",
                          Text(f"from {values[0]:.4g}", style="dim"))  # fmt: skip
    return table


def is_over(shown: Mapping[str, Any]) -> bool:
    """Whether nothing of a run is running or queued any more, or will be in a moment."""
    if "error" in shown:
        return bool(shown["error"] != status.SILENT)
    if shown.get("holder"):
        # Between an attempt's end and the next one the run is still held by its job.
        return False
    return not any(stage.get("status") in LIVE for stage in shown["stages"].values())


def watch(
    runs: Sequence[RunPaths],
    *,
    every: float,
    console: Console,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show runs until all are over: a screen in a terminal, else lines as they change.

    Parameters
    ----------
    runs : sequence of RunPaths
    every : float
        Seconds between two looks.
    console : Console
    sleep : callable
    """
    if not console.is_terminal:
        _print_changes(runs, every=every, console=console, sleep=sleep)
        return
    with Live(console=console, auto_refresh=False, screen=False, transient=False) as live:
        while True:
            shown = [view(paths) for paths in runs]
            live.update(Group(*(panel(one, console.width) for one in shown)), refresh=True)
            if all(map(is_over, shown)):
                return
            sleep(every)


def _print_changes(
    runs: Sequence[RunPaths], *, every: float, console: Console, sleep: Callable[[float], None]
) -> None:
    before: set[str] = set()
    while True:
        shown = [view(paths) for paths in runs]
        now = [line for one in shown for line in lines(one)]
        now += [f"{one['run']} event: {event}" for one in shown for event in one.get("events", ())]
        for line in now:
            if line not in before:
                console.out(printable(line), highlight=False)
        before |= set(now)
        if all(map(is_over, shown)):
            return
        sleep(every)
