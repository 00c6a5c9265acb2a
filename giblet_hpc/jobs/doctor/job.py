"""The doctor's job: queueing it, and what its nodes' findings and measurements amount to.

Runs with the geometry of a run to come, in the same image and with the same variables, so that
what it finds is what the run would meet.
"""

from __future__ import annotations

import getpass
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from giblet_hpc.config.cluster import Cluster
from giblet_hpc.files import read_json, write_json
from giblet_hpc.findings import Finding
from giblet_hpc.jobs import profiles
from giblet_hpc.jobs.doctor.node import NodeCheck
from giblet_hpc.jobs.record.resources import Resources, for_parallel, is_queued
from giblet_hpc.jobs.schedulers import registry
from giblet_hpc.jobs.schedulers.base import NO_ANSWER, NoAnswer, Order, Scheduler

TIME = "15"
FIRST_LOOK_SECONDS, LONGEST_LOOK_SECONDS = 1.0, 20.0
SKEW_SECONDS = 5.0
EXPECTED_SHARE = 0.5
"""Share of what the network, or an earlier check-up, promises, under which something is wrong."""
RDMA = ("InfiniBand", "RoCE", "EFA", "Slingshot")


def carry_out(
    profile: Cluster, size: Resources, runs: Path, *, tell: Callable[[str], None]
) -> list[Finding]:
    """Queue the doctor's job, wait for it, and return what it found.

    Parameters
    ----------
    profile : Cluster
    size : Resources
        Of the run to come.
    runs : Path
        Folder of runs; the check-up and what it remembers are kept in ``.doctor`` there.
    tell : callable
        Receives lines about the progress.

    Raises
    ------
    JobError
        When the scheduler refuses the job, or it does not end in time.
    """
    home = runs.resolve() / ".doctor"
    folder = home / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    profiles.save(profile, folder / "cluster.yaml")
    check = NodeCheck(str(folder), size.ranks, size.gpus)
    if not is_queued(profile):
        check()
        return collect(folder, size, remembered=home / "baselines.json", key=_key(profile, size))
    scheduler = registry.of(profile.scheduler)
    resources = for_parallel(profile, "train", size, time=TIME)
    order = Order(
        [check], nodes=size.nodes, cpus=resources.cpus, gpus=size.gpus,
        memory_gb=resources.memory_gb, minutes=resources.minutes,
        partition=resources.partition, submissions=folder / "attempts" / "submitit",
    )  # fmt: skip
    (job,) = scheduler.submit(profile, order)
    tell(f"job {job} on {size.nodes} nodes, {size.ranks} ranks each; its files: {folder}")
    try:
        _wait(scheduler, job, tell)
    except BaseException:
        scheduler.cancel([job])
        raise
    return collect(folder, size, remembered=home / "baselines.json", key=_key(profile, size))


def _key(profile: Cluster, size: Resources) -> str:
    return f"{profile.name} {profile.partition or 'default'} {size.nodes}x{size.ranks}"


def _wait(scheduler: Scheduler, job: str, tell: Callable[[str], None]) -> None:
    """Return when the job has left the queue; looks ever less often, for the controller's sake."""
    said, pause = "", FIRST_LOOK_SECONDS
    while (found := scheduler.jobs([job], getpass.getuser())) is NO_ANSWER or found:
        if isinstance(found, NoAnswer):
            current = f"{scheduler.title} does not answer"
        else:
            info = next(iter(found.values()))
            current = f"{info.state.lower()} {info.waiting_for}".strip()
        if current != said:
            tell(current)
            said, pause = current, FIRST_LOOK_SECONDS
        time.sleep(pause)
        pause = min(1.5 * pause, LONGEST_LOOK_SECONDS)


def collect(folder: Path, size: Resources, *, remembered: Path, key: str) -> list[Finding]:
    """Return the findings of a finished check-up; what was measured becomes the new baseline.

    Parameters
    ----------
    folder : Path
        Of the check-up.
    size : Resources
    remembered : Path
        File with the best bandwidths so far.
    key : str
        Under which those of this partition and geometry are.
    """
    found = []
    nodes = {}
    for node in range(size.nodes):
        file = folder / f"node-{node}.json"
        if not file.is_file():
            found.append(
                Finding("node", "fail", f"node {node} wrote nothing into {folder}",
                        f"does every node share that folder? Its log: {folder}/attempts/submitit")
            )  # fmt: skip
            continue
        facts = nodes[node] = read_json(file)
        for finding in (Finding(**fields) for fields in facts["findings"]):
            found.append(Finding(**{**asdict(finding), "seen": f"{facts['host']}: {finding.seen}"}))
    if size.world > 1 and len(nodes) == size.nodes:
        found += _bandwidths(folder, nodes, remembered=remembered, key=key)
    return found


def _bandwidths(
    folder: Path, nodes: Mapping[int, Mapping[str, Any]], *, remembered: Path, key: str
) -> list[Finding]:
    file = folder / "allreduce.json"
    failed = [node for node, facts in nodes.items() if facts.get("code")]
    if failed or not file.is_file():
        return [
            Finding("all-reduce", "fail", "the ranks could not add up a tensor together",
                    f"why is in {folder}/node-{(failed or [0])[0]}.log")
        ]  # fmt: skip
    measured = read_json(file)
    logs = "\n".join(log.read_text(errors="replace") for log in sorted(folder.glob("nccl.*.log")))
    known = read_json(remembered) if remembered.is_file() else {}
    best = known.setdefault(key, {})
    transports = set(re.findall(r"Using network (.+)", logs)) if len(nodes) > 1 else set()
    found = [*clocks(measured["clocks"]), *judge(measured, nodes[0], transports, best)]
    for row in measured["rows"]:
        name = f"{row['scope']} {row['bytes']}"
        best[name] = max(best.get(name, 0.0), row["gigabytes_per_second"])
    write_json(remembered, known)
    return found


def clocks(measured: Mapping[str, float]) -> list[Finding]:
    """Compare the nodes' clocks, which were read at the same moment.

    Parameters
    ----------
    measured : mapping
        Each host's time, in seconds since the epoch.
    """
    if len(measured) < 2:
        return []
    ordered = sorted(measured, key=lambda host: measured[host])
    skew = measured[ordered[-1]] - measured[ordered[0]]
    seen = f"the clocks of {len(measured)} nodes are at most {skew:.2f} s apart"
    if skew > SKEW_SECONDS:
        return [
            Finding("clocks", "warn", f"{seen}: {ordered[0]} is behind {ordered[-1]}",
                    "ask the admin about time synchronisation: heartbeats are judged by it")
        ]  # fmt: skip
    return [Finding("clocks", "ok", seen)]


def judge(
    measured: Mapping[str, Any],
    node: Mapping[str, Any],
    transports: set[str],
    best: Mapping[str, float],
) -> list[Finding]:
    """Compare bandwidths with what the network promises and with earlier check-ups.

    Parameters
    ----------
    measured : mapping
        What `giblet_hpc.stages.allreduce` wrote.
    node : mapping
        Node 0's record, with ``network`` and ``gigabits``.
    transports : set of str
        Networks that NCCL says it uses.
    best : mapping
        Highest bandwidth so far, in GB/s, by scope and size.
    """
    found = []
    if node["network"] in RDMA and "Socket" in transports:
        found.append(
            Finding("all-reduce", "fail", f"NCCL uses sockets although there is {node['network']}",
                    "the log of NCCL says why; often memory locking, or a plugin not in the image")
        )  # fmt: skip
    for row in measured["rows"]:
        speed, scope = row["gigabytes_per_second"], row["scope"]
        where = "inside a node" if scope == "node" else f"over {row['ranks']} ranks"
        seen = f"{row['bytes'] >> 20} MiB {where} by {measured['backend']}: {speed:.2f} GB/s"
        large = row["bytes"] == max(r["bytes"] for r in measured["rows"])
        earlier = best.get(f"{scope} {row['bytes']}", 0.0)
        promised = node["gigabits"] / 8 if scope == "all" else 0.0
        if large and speed < EXPECTED_SHARE * earlier:
            found.append(
                Finding("all-reduce", "fail", f"{seen}; it was {earlier:.2f} before",
                        "tell the admin; another pair of nodes may do better")
            )  # fmt: skip
        elif large and measured["backend"] == "nccl" and speed < EXPECTED_SHARE * promised:
            found.append(
                Finding("all-reduce", "warn", f"{seen}; the network promises {promised:.0f}",
                        "GPUs and network cards far apart, or sockets: NCCL's logs are kept")
            )  # fmt: skip
        else:
            found.append(Finding("all-reduce", "ok", seen))
    return found
