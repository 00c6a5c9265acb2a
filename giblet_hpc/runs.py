"""A run's folder: every file name in it, and the state that says where the run stands."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from giblet_hpc import config_io
from giblet_hpc.config import RunConfig
from giblet_hpc.errors import ConfigError, JobError
from giblet_hpc.files import read_json, sha256_json, write_json

Stage = Literal["preprocess", "train", "evaluate"]
STAGES: tuple[Stage, ...] = ("preprocess", "train", "evaluate")
HEARTBEAT_SECONDS = 5.0
ATTEMPT = "GIBLET_ATTEMPT"
"""Variable that names the folder of the attempt that a stage's processes belong to."""
GPUS = "GIBLET_GPUS"
"""Variable that tells a stage's processes how many GPUs their job has on each node."""
IMAGE = "GIBLET_IMAGE"
"""Variable that tells a stage's processes the digest of the container image they are in."""


def default_runs_folder() -> Path:
    """Return the folder that runs live in: $GIBLET_RUNS, or `runs` in the working folder."""
    return Path(os.environ.get("GIBLET_RUNS", "runs"))


@dataclass(frozen=True)
class RunPaths:
    """Names of all files of one run.

    Parameters
    ----------
    root : Path
        The run's folder; its last part is the run's name.
    """

    root: Path

    @property
    def name(self) -> str:
        """The run's name."""
        return self.root.name

    def command(self, verb: str, *more: str) -> str:
        """Return what to type for this run, from the folder that this process is in.

        Parameters
        ----------
        verb : str
            A command that takes the run's name.
        more : str
            What follows the name.
        """
        words = ["giblet-hpc", *verb.split(), self.name, *more]
        runs, here = self.root.parent.resolve(), Path.cwd()
        if runs != default_runs_folder().resolve():
            words += ["--runs", str(runs.relative_to(here) if runs.is_relative_to(here) else runs)]
        return shlex.join(words)

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.root / "run.yaml"

    @property
    def state(self) -> Path:
        """Where the run stands."""
        return self.root / "state.json"

    def part_state(self, part: str) -> Path:
        """Where one part of preprocess stands, which has a job of its own."""
        return self.root / "preprocess" / f"{part}.json"

    @property
    def stop(self) -> Path:
        """A file whose presence asks a stage to stop at the next step boundary, for good."""
        return self.root / "STOP"

    @property
    def stops(self) -> tuple[Path, ...]:
        """All files that ask this process's stage to stop: the run's, and its own attempt's."""
        attempt = os.environ.get(ATTEMPT)
        return (self.stop, Path(attempt) / "STOP") if attempt else (self.stop,)

    @property
    def cluster(self) -> Path:
        """The profile of the place that the run was submitted to."""
        return self.root / "cluster.yaml"

    @property
    def image(self) -> Path:
        """What identifies the container image that the run was last in."""
        return self.root / "image.json"

    @property
    def split(self) -> Path:
        """The TRs that train, validate and test."""
        return self.root / "split.json"

    @property
    def inputs(self) -> Path:
        """The subjects, and the store's parts with their fingerprints, that preprocess settled."""
        return self.root / "inputs.json"

    @property
    def attempts(self) -> Path:
        """Folder with one numbered folder an attempt."""
        return self.root / "attempts"

    @property
    def jobs(self) -> Path:
        """submitit's own files."""
        return self.root / "attempts" / "submitit"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard event files."""
        return self.root / "tensorboard"

    @property
    def evaluation(self) -> Path:
        """Scores, maps and samples."""
        return self.root / "evaluation"

    @property
    def report(self) -> Path:
        """The self-contained HTML report."""
        return self.root / "report.html"

    def checkpoints(self, fold: str = "") -> Path:
        """Folder of the checkpoints of a fold (none: the only one)."""
        return self.root / "checkpoints" / fold

    def metrics(self, fold: str = "") -> Path:
        """Training figures of a fold, one JSON object a line."""
        return self.root / (f"metrics-{fold}.jsonl" if fold else "metrics.jsonl")

    def statistics(self, fold: str, digest: str) -> Path:
        """What a fold fitted on its training TRs, of data with a digest: LSA, means, variances."""
        return self.root / "statistics" / f"{fold or 'all'}-{digest[:16]}.npz"

    def load_config(self) -> RunConfig:
        """Read the resolved config.

        Raises
        ------
        ConfigError
            When there is no such run.
        """
        if not self.config.is_file():
            raise ConfigError(
                f"no run at {self.root}",
                hint="`giblet-hpc status` lists the runs; --runs DIR looks elsewhere",
            )
        return config_io.load(self.config)

    def create(self, config: RunConfig) -> None:
        """Make the folder and write the resolved config, or check that it is the same one.

        Raises
        ------
        ConfigError
            When the run exists with another config; its message lists the differing fields.
        """
        self.require_same(config)
        if not self.config.is_file():
            self.root.mkdir(parents=True, exist_ok=True)
            config_io.save(config, self.config)

    def require_same(self, config: RunConfig) -> None:
        """Check that the run, if it exists, has this config.

        Raises
        ------
        ConfigError
            When it has another one; the message lists the differing fields.
        """
        if self.config.is_file():
            changed = config_io.differences(
                config_io.plain(self.load_config()), config_io.plain(config)
            )
            if changed:
                raise ConfigError(
                    "\n  ".join([f"run {self.name} exists with another config:", *changed]),
                    hint="give the new settings a name of their own with --name, or put the old "
                    "run aside with --force",
                )

    def read_state(self) -> dict[str, Any]:
        """Return the state: a dict of stages, each with status, phase, step, heartbeat."""
        if not self.state.is_file():
            return {"stages": {}}
        state: dict[str, Any] = read_json(self.state)
        return state

    def update_state(self, stage: Stage, *, part: str = "", **fields: Any) -> None:
        """Change some fields of a stage's state; the heartbeat is set to now."""
        if part:
            entry = {**self.stage_state(stage, part=part), **fields, "heartbeat": time.time()}
            write_json(self.part_state(part), entry)
            return
        state = self.read_state()
        state["stages"].setdefault(stage, {}).update(fields, heartbeat=time.time())
        write_json(self.state, state)

    def stage_state(self, stage: Stage, *, part: str = "") -> Mapping[str, Any]:
        """Return the state of a stage, or of one part of preprocess; empty when it never ran."""
        if part:
            file = self.part_state(part)
            return read_json(file) if file.is_file() else {}
        entry: Mapping[str, Any] = self.read_state()["stages"].get(stage, {})
        return entry

    def data_digest(self) -> str:
        """Return what stands for the data that the run is trained on: its inputs and its split."""
        return sha256_json([read_json(self.inputs), read_json(self.split)])

    def set_aside(self) -> Path | None:
        """Move what training and evaluation made out of the way; return where it went.

        For results of data that have changed: kept, but never taken for those of the new data.
        """
        made = [self.root / "checkpoints", self.root / "statistics", self.tensorboard]
        made += [self.evaluation, self.report, *self.root.glob("metrics*.jsonl")]
        there = [path for path in made if path.exists()]
        for stage in ("train", "evaluate"):
            if self.stage_state(stage).get("status", "not started") != "not started":
                self.update_state(stage, status="not started", step=0, resumed_from=None)
        if not there:
            return None
        aside = self.root / "set-aside" / time.strftime("%Y%m%d-%H%M%S")
        aside.mkdir(parents=True)
        for path in there:
            path.rename(aside / path.name)
        return aside

    def checkpoint_step(self) -> int:
        """Return the step of the newest checkpoint, summed over folds: what a crash cannot undo."""
        pointers = [*(self.root / "checkpoints").glob("latest")]
        pointers += (self.root / "checkpoints").glob("*/latest")
        return sum(int(pointer.read_text().rpartition("-")[2]) for pointer in pointers)

    def require_complete(self, stage: Stage) -> None:
        """Check that an earlier stage has finished.

        Raises
        ------
        JobError
            When it has not.
        """
        status = self.stage_state(stage).get("status", "not started")
        if status != "complete":
            raise JobError(
                f"run {self.name}: {stage} is {status}",
                hint=self.command(f"submit {stage} --name"),
            )

    def put_off(self, stage: Stage) -> None:
        """Say of the stages after a stage that they will not start."""
        for later in STAGES[STAGES.index(stage) + 1 :]:
            if self.stage_state(later).get("status") == "queued":
                self.update_state(later, status="not started", job="")


class Heartbeat:
    """Writes progress into the state, at most every few seconds.

    Parameters
    ----------
    paths : RunPaths
        The run.
    stage : str
        The stage that makes progress.
    part : str
        The part of preprocess that does.
    """

    def __init__(self, paths: RunPaths, stage: Stage, *, part: str = "") -> None:
        self._paths = paths
        self._stage = stage
        self._part = part
        self._last = 0.0

    def beat(self, **fields: Any) -> None:
        """Record ``fields`` when the last record is old enough."""
        now = time.monotonic()
        if now - self._last >= HEARTBEAT_SECONDS:
            self._last = now
            self._paths.update_state(self._stage, part=self._part, **fields)
