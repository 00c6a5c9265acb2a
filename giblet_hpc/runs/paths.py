"""A run's folder: every file name in it, its config, and where its stages stand."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from giblet_hpc.errors import ConfigError, DataError, JobError
from giblet_hpc.files import read_json, sha256_json, write_json
from giblet_hpc.runs import checkpoints
from giblet_hpc.runs.attempt_paths import AttemptPaths
from giblet_hpc.trust import make_private_folder

if TYPE_CHECKING:
    from giblet_hpc.config.run import RunConfig

Stage = Literal["preprocess", "train", "evaluate"]
NO_NETWORK = "no network is asked for"
STAGES: tuple[Stage, ...] = ("preprocess", "train", "evaluate")
FORMAT = 4
"""Layout of run folders. Others are refused."""


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

    def exists(self) -> bool:
        """Return whether there is a run that this user may look into."""
        return os.path.isfile(self.config)  # noqa: PTH113 - Path.is_file raises where it may not look

    @property
    def format(self) -> Path:
        """The number of the folder's layout."""
        return self.root / "format.json"

    def state(self, stage: Stage, part: str = "") -> Path:
        """Where a stage stands, or a part of preprocess that has a job of its own.

        Written by whoever holds the lease for the stage: first the submission, then the supervisor
        of node 0, then the job's epilogue.
        """
        return self.root / "state" / (f"{stage}.{part}.json" if part else f"{stage}.json")

    @property
    def lease(self) -> Path:
        """Who works on the run."""
        return self.root / "lease.json"

    @property
    def ended_jobs(self) -> Path:
        """Folder with a file for each job that has ended its share in the lease; by that job."""
        return self.root / "ended-jobs"

    @property
    def provenance(self) -> Path:
        """Where the results come from."""
        return self.root / "provenance.json"

    @property
    def excluded_nodes(self) -> Path:
        """Folder with a file for each node that lost a job lately; shared by a folder's runs."""
        return self.root.parent / ".excluded-nodes"

    @property
    def replaced(self) -> Path:
        """Folder of runs that were replaced by others of their name."""
        return self.root.parent / ".replaced"

    @property
    def set_aside_folder(self) -> Path:
        """A new name for results that are not the run's any more."""
        return self.root / "set-aside" / time.strftime("%Y%m%d-%H%M%S")

    @property
    def stop(self) -> Path:
        """A file whose presence asks a stage to stop at the next step boundary, for good."""
        return self.root / "STOP"

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

    def attempt(self, number: int) -> AttemptPaths:
        """The files of an attempt."""
        return AttemptPaths(self.attempts / str(number))

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
    def scores(self) -> Path:
        """The scores of all folds."""
        return self.evaluation / "scores.json"

    def figures(self, fold: str = "") -> Path:
        """Folder of a fold's pictures, which the report shows."""
        return self.evaluation / fold / "figures"

    def methods(self, stage: Stage) -> Path:
        """What a stage says of itself in a methods section."""
        return self.root / "methods" / f"{stage}.json"

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

    def profile(self, fold: str = "") -> Path:
        """Profiles of a fold's steps."""
        return self.root / (f"profile-{fold}" if fold else "profile")

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
        from giblet_hpc.config import io

        self.require_format()
        return io.load(self.config)

    def require_format(self) -> None:
        """Check that there is a run, of the layout that this version reads and writes.

        Raises
        ------
        ConfigError
            When there is none, or it has another layout.
        """
        if not self.config.is_file():
            raise ConfigError(
                f"no run at {self.root}",
                hint="`giblet-hpc status` lists the runs; --runs DIR looks elsewhere",
            )
        if not self.is_current():
            raise ConfigError(
                f"run {self.name} was made by another version of giblet-hpc: make it anew",
                hint=f"giblet-hpc submit pipeline --config {self.config} --force",
            )

    def is_current(self) -> bool:
        """Whether the folder has the layout that this version reads and writes."""
        return self.format.is_file() and read_json(self.format).get("format") == FORMAT

    def create(self, config: RunConfig) -> None:
        """Make the folder and write the resolved config, or check that it is the same one.

        Raises
        ------
        ConfigError
            When the run exists with another config; its message lists the differing fields.
        """
        from giblet_hpc.config import io

        self.require_same(config)
        if not self.config.is_file():
            make_private_folder(self.root)
            write_json(self.format, {"format": FORMAT})
            io.save(config, self.config)
            self.skip_training(not config.evaluate.network)

    def require_same(self, config: RunConfig) -> None:
        """Check that the run, if it exists, has this config.

        Raises
        ------
        ConfigError
            When it has another one; the message lists the differing fields.
        """
        if not self.config.is_file():
            return
        from giblet_hpc.config import io

        changed = io.differences(io.plain(self.load_config()), io.plain(config))
        if changed:
            raise ConfigError(
                "\n  ".join([f"run {self.name} exists with another config:", *changed]),
                hint=f"`--name {self.name} --fork NEW --set ...` makes a run with other settings "
                "that shares what preprocess made; --name NEW one of its own; --force puts the old "
                "one aside",
            )

    def skip_training(self, skipped: bool) -> None:
        """Count training as complete where no network is asked for, and as not started again."""
        record = self.recorded_state("train")
        if skipped and record.get("status", "not started") == "not started":
            self.update_state("train", status="complete", skipped=True, reason=NO_NETWORK)
        elif not skipped and record.get("skipped"):
            self.update_state("train", status="not started", skipped=False, reason="")

    def update_state(self, stage: Stage, *, part: str = "", **fields: Any) -> None:
        """Change some fields of a stage's record."""
        known, now = self.recorded_state(stage, part=part), time.time()
        queued = {"queued_at": now} if fields.get("status") == "queued" else {}
        write_json(self.state(stage, part), {**known, **fields, **queued, "time": now})

    def recorded_state(self, stage: Stage, *, part: str = "") -> dict[str, Any]:
        """Return a stage's record alone; empty when it was never submitted."""
        file = self.state(stage, part)
        record: dict[str, Any] = read_json(file) if file.is_file() else {}
        return record

    def stage_state(self, stage: Stage, *, part: str = "") -> Mapping[str, Any]:
        """Return where a stage stands: its record, and how far its attempt says it is.

        Once the attempt has ended its progress is in the record, and only there. A stage whose
        results somebody has deleted since is not complete any more.
        """
        record = self.recorded_state(stage, part=part)
        made = record.get("status") == "complete" and "attempt" in record
        if made and not part and self._is_gone(stage):
            gone = "its results are gone from the run's folder"
            return {**record, "status": "not started", "reason": gone}
        if "attempt" not in record or record.get("status") not in ("running", "stopping"):
            return record
        progress = self.read_progress(record["attempt"])
        progress.pop("status", None)
        return {**record, **progress}

    def _is_gone(self, stage: Stage) -> bool:
        """Whether what a stage made is not there; checkpoints are not needed once all is scored."""
        if stage == "preprocess":
            return not (self.inputs.is_file() and self.split.is_file())
        if self.scores.is_file():
            return False
        return stage == "evaluate" or not any(self.checkpoints().glob("**/step-*"))

    def read_progress(self, attempt: int) -> dict[str, Any]:
        """Return what rank 0 of an attempt has said last; empty before its first word."""
        try:
            progress: dict[str, Any] = read_json(self.attempt(attempt).progress)
        except DataError:
            return {}
        return progress

    def parts(self) -> dict[str, dict[str, Any]]:
        """Return where the parts of preprocess stand that have jobs of their own, by name."""
        files = sorted((self.root / "state").glob("preprocess.*.json"))
        return {
            file.name.removeprefix("preprocess.").removesuffix(".json"): dict(
                self.stage_state(
                    "preprocess",
                    part=file.name.removeprefix("preprocess.").removesuffix(".json"),
                )
            )
            for file in files
        }

    def last_change(self) -> float:
        """Return when a stage's record was last written, in seconds since the epoch."""
        files = [self.config, *(self.state(stage) for stage in STAGES)]
        return max(file.stat().st_mtime for file in files if file.is_file())

    def data_digest(self) -> str:
        """Return what stands for the data that the run is trained on: its inputs and its split."""
        return sha256_json([read_json(self.inputs), read_json(self.split)])

    def set_aside(self) -> Path | None:
        """Move what training and evaluation made out of the way; return where it went.

        For results of data that have changed: kept, but never taken for those of the new data.
        """
        results = [self.checkpoints(), self.root / "statistics", self.tensorboard]
        results += [self.evaluation, self.report, *self.root.glob("metrics*.jsonl")]
        results += [self.root / "choices", self.root / "lesions"]
        existing = [path for path in results if path.exists()]
        for stage in ("train", "evaluate"):
            state = self.stage_state(stage)
            if state.get("status", "not started") != "not started" and not state.get("skipped"):
                self.update_state(stage, status="not started", step=0, resumed_from=None)
        self.skip_training(not self.load_config().evaluate.network)
        if not existing:
            return None
        aside = self.set_aside_folder
        aside.mkdir(parents=True)
        for path in existing:
            path.rename(aside / path.name)
        return aside

    def checkpoint_step(self) -> int:
        """Return the step of the newest checkpoint, summed over folds: what a crash cannot undo."""
        return checkpoints.latest_step(self.checkpoints())

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

    def queued_later_stages(self, stage: Stage) -> list[Stage]:
        """Return the stages after a stage that are queued."""
        later = STAGES[STAGES.index(stage) + 1 :]
        return [name for name in later if self.stage_state(name).get("status") == "queued"]

    def unqueue_later_stages(self, stage: Stage) -> None:
        """Say of the stages after a stage that they will not start."""
        for later in self.queued_later_stages(stage):
            self.update_state(later, status="not started", job="")
