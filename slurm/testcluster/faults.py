#!/usr/bin/env python3
"""Random faults on a throw-away Slurm cluster, and what the runs make of them.

    sudo .venv/bin/python slurm/testcluster/faults.py FOLDER [--faults 60] [--seed 1] [--kinds ...]

Trains runs of two ranks on two nodes, hits each with a few faults at random moments, and checks
that it ends by itself with the weights of a run that was left alone, that each attempt's record
names the fault that was made, and that no process is left. FOLDER must not exist; its path has to
be short, for sockets. What was seen goes to FOLDER/faults.json; the exit code is 1 if anything was
not as it should be.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cluster import Cluster

from giblet_hpc.jobs.record import lease
from giblet_hpc.jobs.record.attempts import Attempt, history
from giblet_hpc.jobs.schedulers import sealed
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.synthetic import StudySpec, synthesize
from giblet_hpc.training import checkpoint

ROOT = Path(__file__).parents[2]
RANK = "giblet_hpc.stages\0train"
PER_RUN = 5
EXPECTED = {
    "rank": r"rank \d+ on n[12] was killed by signal 9 \(SIGKILL\)",
    "rank-abort": r"rank \d+ on n[12] was killed by signal 6 \(SIGABRT\)",
    "torchrun": r"the stage's first process on n[12] was killed by signal 9",
    "supervisor": r"its supervisor was killed|was killed",
    "batch-shell": r"the job's script was killed on its first node",
    "job-step": r"was killed",
    "slurmd": r"killed from outside|was killed|node|SIGTERM",
    "stopped-rank": r"no step for \d+ s after step \d+.*waiting for rank \d+",
    "preemption": r"SIGTERM",
    "walltime": r"SIGUSR2",
    "damaged-checkpoint": r"rank \d+ on n[12] was killed by signal 9 \(SIGKILL\)",
}
"""What the record of an attempt has to say, by the fault that it met."""
WEIGHTS = {"slurmd": 1, "stopped-rank": 2, "walltime": 2}
"""How often a kind comes, where not 3 times as often as the rarest: some take a minute each."""
SETTINGS = (
    "features.video={height: 18, width: 32, frame_skip: 12}", "features.audio={kind: mel, mel_bands: 8}",
    "features.text={encoder: lsa, dimensions: 6}", "model.bottleneck=16",
    "model.temporal={frame_channels: 4, width: 16, code_width: 8, rank: 6, subject_rank: 1, fir_seconds: 9}",
    "train.epochs=1500", "train.window_trs=4", "train.batch_windows=8", "train.checkpoint_every=20",
    "train.validate_every=60", "train.log_every=50", "train.keep_last=3", "split.purge_seconds=9",
    "split.validation_fraction=0.25",
)  # fmt: skip
PROFILE = """\
scheduler: slurm
partition: main
gpus_per_node: 0
cpus_per_node: 4
time: "10"
lead_seconds: 60
hang_seconds: 12
environment: {OMP_NUM_THREADS: "1"}
"""


class GoneError(Exception):
    """There is no process to hit."""


class Campaign:
    """A cluster, a study, and runs that are hit.

    Parameters
    ----------
    folder : Path
        For everything; new.
    seed : int
        Of kinds, targets and moments.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.cluster = Cluster(folder / "slurm")
        self.rows: list[dict[str, Any]] = []
        self.problems: list[str] = []

    def paths(self, name: str) -> RunPaths:
        return RunPaths(self.folder / "runs" / name)

    def giblet(self, *words: str) -> str:
        """Run a command of giblet-hpc's."""
        done = subprocess.run(
            [sys.executable, "-m", "giblet_hpc.cli", *words], cwd=self.folder,
            env={**os.environ, "GIBLET_RUNS": str(self.folder / "runs")}, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def prepare(self) -> None:
        """Start the cluster, make the study, and train a run that nothing happens to."""
        self.folder.mkdir(mode=0o755)
        (self.folder / "slurm").mkdir()
        self.cluster.up()
        os.environ["SLURM_CONF"] = str(self.cluster.conf)
        (self.folder / "profile.yaml").write_text(PROFILE)
        synthesize(self.folder / "data", StudySpec(runs=(64, 40), subjects=3, grid=(7, 8, 6)))
        self.preprocess("calm")
        self.giblet("run", "train", "calm", "--ranks", "2")

    def preprocess(self, name: str) -> None:
        """Make a run that can be trained."""
        settings = [
            f"study.root={self.folder}/data",
            f"study.store={self.folder}/store.zarr",
            *SETTINGS,
        ]
        options = [word for setting in settings for word in ("--set", setting)]
        demo = str(ROOT / "configs" / "demo.yaml")
        self.giblet("run", "preprocess", name, "--config", demo, *options)

    def hit_run(self, name: str, kinds: list[str]) -> None:
        """Train a run and make faults of these kinds, one an attempt, while it lasts."""
        self.preprocess(name)
        self.giblet("submit", "train", "--name", name, "--cluster", "profile.yaml", "--ranks", "2",
                    "--nodes", "2")  # fmt: skip
        reached = 0
        while kinds and self._far_enough(name, reached):
            attempt = _attempts(self.paths(name))[-1]
            time.sleep(self.random.uniform(0, 1.5))
            if self.paths(name).recorded_state("train").get("status") != "running":
                continue
            kind = kinds.pop(0)
            reached = self.paths(name).checkpoint_step()
            begin = time.time()
            try:
                what = getattr(self, "make_" + kind.replace("-", "_"))(name, attempt)
                _wait(lambda a=attempt: "ended" in a.facts(), 200)
            except (GoneError, ProcessLookupError, subprocess.CalledProcessError):
                # The attempt has ended by itself in the meantime: the next one is hit.
                kinds.insert(0, kind)
                continue
            except TimeoutError:
                self.problems.append(f"{name}: nothing came of {kind}")
                break
            self._judge(name, kind, what, attempt, time.time() - begin)
        self._finish(name)

    def _far_enough(self, name: str, reached: int) -> bool:
        """Wait for a running attempt with a checkpoint of its own; False once the run has ended."""
        paths = self.paths(name)

        def there() -> bool:
            status = paths.recorded_state("train").get("status")
            found = _attempts(paths)
            new = bool(found) and "ended" not in found[-1].facts()
            ahead = new and paths.checkpoint_step() > reached
            return status in ("complete", "failed", "stopped") or (ahead and status == "running")

        _wait(there, 240)
        return paths.recorded_state("train")["status"] == "running"

    def _judge(self, name: str, kind: str, what: str, attempt: Attempt, seconds: float) -> None:
        facts = attempt.facts()
        said = f"{facts.get('reason') or ''} {facts.get('why_asked') or ''}".strip()
        named = re.search(EXPECTED[kind], said) is not None
        row = {"run": name, "kind": kind, "what": what, "outcome": facts["outcome"], "said": said,
               "named": named, "seconds": round(seconds, 1), "step": facts.get("checkpoint_to")}  # fmt: skip
        self.rows.append(row)
        say(json.dumps(row))
        if not named and facts["outcome"] != "complete":
            self.problems.append(f"{name}: {kind} is called {said!r}")

    def _finish(self, name: str) -> None:
        """Wait for the end of a run, and compare it with the one that was left alone."""
        paths = self.paths(name)
        done = ("complete", "failed", "stopped")
        try:
            _wait(lambda: paths.recorded_state("train").get("status") in done
                  and lease.holder(paths) is None, 400)  # fmt: skip
        except TimeoutError:
            self.problems.append(f"{name} did not end: {self.giblet('status', name)}")
            subprocess.run(["scancel", "--user=root"], check=False)
            return
        state = paths.recorded_state("train")
        if state["status"] != "complete":
            self.problems.append(f"{name} is {state['status']}: {state.get('reason')}")
        elif different := _different(weights_of(paths), weights_of(self.paths("calm"))):
            self.problems.append(f"{name} has other weights: {different}")
        try:
            _wait(lambda: not _processes(paths.root), 30)
        except TimeoutError:
            self.problems.append(f"{name} has left {_processes(paths.root)}")

    def make_rank(self, name: str, attempt: Attempt, number: int = signal.SIGKILL) -> str:
        """Kill a rank."""
        process = self._one(name, RANK)
        os.kill(process, number)
        return f"signal {int(number)} to rank process {process}"

    def make_rank_abort(self, name: str, attempt: Attempt) -> str:
        return self.make_rank(name, attempt, signal.SIGABRT)

    def make_torchrun(self, name: str, attempt: Attempt) -> str:
        process = self._one(name, "giblet_hpc.stages.torchrun")
        os.kill(process, signal.SIGKILL)
        return f"killed torchrun {process}"

    def make_supervisor(self, name: str, attempt: Attempt) -> str:
        process = self._one(name, sealed.MODULE)
        os.kill(process, signal.SIGKILL)
        return f"killed supervisor {process}"

    def make_batch_shell(self, name: str, attempt: Attempt) -> str:
        job = self.paths(name).recorded_state("train")["job"]
        shells = _found(lambda words, _: words.endswith(f"job{int(job):05d}/slurm_script\0"))
        if not shells:
            raise GoneError
        (shell,) = shells
        os.kill(shell, signal.SIGKILL)
        return f"killed the shell {shell} of job {job}"

    def make_job_step(self, name: str, attempt: Attempt) -> str:
        job = self.paths(name).recorded_state("train")["job"]
        subprocess.run(["scancel", "--signal=KILL", f"{job}.0"], check=True)
        return f"scancel --signal=KILL {job}.0"

    def make_slurmd(self, name: str, attempt: Attempt) -> str:
        """Kill a node's slurmd, and bring it back once the run's processes are gone."""
        self.cluster.kill("slurmd-n2")
        _wait(lambda: "down" in _said("sinfo", "-h", "-N", "-o", "%N %t"), 120)
        _wait(lambda: not _processes(self.paths(name).root), 120)
        self.cluster.start_node("n2")
        return "killed slurmd of n2"

    def make_stopped_rank(self, name: str, attempt: Attempt) -> str:
        return self.make_rank(name, attempt, signal.SIGSTOP)

    def make_preemption(self, name: str, attempt: Attempt) -> str:
        subprocess.run(
            ["sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null",
             "--wrap=srun sleep 1"], check=True, capture_output=True,
        )  # fmt: skip
        return "a job of the urgent partition"

    def make_walltime(self, name: str, attempt: Attempt) -> str:
        """Take all time from a job but the lead; what is queued again gets it back."""
        job = self.paths(name).recorded_state("train")["job"]
        subprocess.run(["scontrol", "update", f"JobId={job}", "TimeLimit=1"], check=True)
        _wait(lambda: "ended" in attempt.facts(), 200)
        _wait(lambda: "PENDING" in _said("squeue", "-h", "-j", job, "-o", "%T"), 60)
        subprocess.run(["scontrol", "update", f"JobId={job}", "TimeLimit=10"], check=True)
        return "TimeLimit=1"

    def make_damaged_checkpoint(self, name: str, attempt: Attempt) -> str:
        """Cut the newest checkpoint short, and kill a rank."""
        killed = self.make_rank(name, attempt)
        _wait(lambda: "ended" in attempt.facts(), 200)
        folder = self.paths(name).checkpoints()
        file = folder / (folder / "latest").read_text() / "rank-00000.safetensors"
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        return f"{killed}; {file.parent.name} cut short"

    def _one(self, name: str, words: str) -> int:
        """Choose one of the run's processes with these words in the command."""
        root = str(self.paths(name).root)

        def of_run(command: str, environment: str) -> bool:
            of_it = root in command or root in environment
            # torchrun's own command names the stage too.
            rank = words != RANK or "\0RANK=" in environment
            return words in command and of_it and rank and not command.startswith("srun\0")

        found = sorted(_found(of_run))
        if not found:
            raise GoneError
        return self.random.choice(found)


def _found(wanted: Callable[[str, str], bool]) -> list[int]:
    """Return the ids of processes by their command and environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
            environment = (entry / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if wanted(command, environment):
            found.append(int(entry.name))
    return found


def _processes(folder: Path) -> list[int]:
    """Return the ids of what works on a run."""
    return [n for n in _found(lambda command, _: str(folder) in command) if n != os.getpid()]


def _attempts(paths: RunPaths) -> list[Attempt]:
    return history(paths, "train")


def weights_of(paths: RunPaths) -> dict[str, torch.Tensor]:
    """Return the weights of the newest checkpoint."""
    folder = paths.checkpoints()
    state = checkpoint.tensors_of(folder / (folder / "latest").read_text())
    return {name: values for name, values in state.items() if name.startswith("model/")}


def _different(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> list[str]:
    return [
        key
        for key in a.keys() | b.keys()
        if key not in a or key not in b or not torch.equal(a[key], b[key])
    ]


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _wait(condition: Callable[[], Any], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.1)


def say(text: str) -> None:
    """Write a line, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Make the faults, and say what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", choices=EXPECTED, default=list(EXPECTED))
    arguments = parser.parse_args()
    campaign = Campaign(arguments.folder.resolve(), arguments.seed)
    # Each kind once; the rest as they come.
    kinds = list(arguments.kinds)
    weights = [WEIGHTS.get(kind, 3) for kind in arguments.kinds]
    kinds += campaign.random.choices(
        arguments.kinds, weights, k=max(0, arguments.faults - len(kinds))
    )
    campaign.random.shuffle(kinds)
    begin = time.time()
    try:
        campaign.prepare()
        number = 0
        while kinds:
            number += 1
            own, before = kinds[:PER_RUN], len(campaign.rows)
            campaign.hit_run(f"hit-{number}", list(own))
            kinds = kinds[len(campaign.rows) - before :]
    finally:
        subprocess.run(["scancel", "--user=root"], check=False)
        campaign.cluster.down()
    facts = {"seed": arguments.seed, "faults": campaign.rows, "problems": campaign.problems,
             "seconds": round(time.time() - begin)}  # fmt: skip
    (campaign.folder / "faults.json").write_text(json.dumps(facts, indent=1) + "\n")
    counts = Counter(row["kind"] for row in campaign.rows)
    say(f"{len(campaign.rows)} faults in {number} runs and {facts['seconds']} s: {dict(counts)}")
    say("\n".join(campaign.problems) or "every run ended with the calm run's weights")
    return 1 if campaign.problems else 0


if __name__ == "__main__":
    sys.exit(main())
