"""Whole runs through the command line: pipeline, kill -9 and resume, a control without an answer."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.training import checkpoint
from tests.conftest import TINY, Cli, sets


def wait_until(condition: Any, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


def processes_of(folder: Path) -> list[int]:
    """Process ids of everything that works on a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in command and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def kill_all(process: subprocess.Popen[bytes], folder: Path) -> None:
    """kill -9 the command and everything it started."""
    for number in [process.pid, *processes_of(folder)]:
        try:
            os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()
    wait_until(lambda: not processes_of(folder))


def start(cli: Cli, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        cli.command(*arguments),
        cwd=cli.folder,
        env={**os.environ, "GIBLET_RUNS": str(cli.runs)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def figures(run: Path, kind: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [row for row in rows if row["kind"] == kind]
    for row in kept:
        for timed in ("trs_per_second", "data_wait_seconds"):
            row.pop(timed, None)
    return kept


def weights(run: Path, step: int) -> dict[str, Any]:
    return checkpoint.tensors_of(run / "checkpoints" / f"step-{step:08d}")


def assert_same_state(a: Any, b: Any) -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same_state(a[key], b[key])
    elif isinstance(a, list | tuple):
        for x, y in zip(a, b, strict=True):
            assert_same_state(x, y)
    else:
        assert a == b


@pytest.mark.slow
def test_pipeline_from_files_to_report(
    cli: Cli, tiny_options: list[str], demo_config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = cli.folder / "the node's disk"
    disk.mkdir()
    monkeypatch.setenv("TMPDIR", str(disk))
    options = ["--config", demo_config, *sets(tiny_options)]
    done = cli("submit", "pipeline", *options, "--ranks", "2", "--wait", "--json")
    facts = json.loads(done.stdout)
    assert {state["status"] for state in facts["stages"].values()} == {"complete"}
    assert list(disk.iterdir()) == [], "nothing stays on the node"
    run = cli.runs / "demo"
    page = (run / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', page), "the page needs no other file"
    assert page.count("data:image/png") >= 6
    (fold,) = json.loads((run / "evaluation" / "scores.json").read_text())
    names = [row["region"] for row in fold["rows"]]
    assert names == ["all voxels", "video", "audio", "text", "mixed", "none"]
    for row in fold["rows"]:
        assert {"model_r", "ridge_r", "ceiling", "normalised_r", "best_r"} <= row.keys()
    image = nibabel.load(run / "evaluation" / "model_r.nii.gz")
    assert image.shape == (7, 8, 6)
    with np.load(run / "evaluation" / "maps.npz") as maps:
        stored = maps["model_r"].mean(0)
        inside = image.get_fdata()[image.get_fdata() != 0]
        np.testing.assert_allclose(np.sort(inside), np.sort(stored[stored != 0]), rtol=1e-5)
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert {
        "train/loss/fmri", "train/loss/video", "train/gradient_norm", "train/gradient_share/fmri",
        "train/lr", "train/trs_per_second", "validation/r", "validation/fmri_error",
    } <= set(events.Tags()["scalars"])  # fmt: skip
    assert json.loads((run / "split.json").read_text())["purge_trs"] == 6
    assert "model r" in cli("scores", "demo").stdout
    assert "complete" in cli("status").stdout
    log = cli("logs", "demo").stdout
    assert "report:" in log
    share = [row["gradient_share/fmri"] for row in figures(run, "train")]
    assert min(share) > 0.2, "the scans are trained for"
    cli("run", "evaluate", "demo", "--ranks", "2")
    assert json.loads((run / "evaluation" / "scores.json").read_text()) == [fold]
    before = (run / "report.html").stat().st_mtime_ns
    again = cli("submit", "pipeline", *options, "--ranks", "2", "--wait")
    assert "already complete" in again.stderr
    assert (run / "report.html").stat().st_mtime_ns == before
    steps = (run / "metrics.jsonl").read_bytes()
    cli("submit", "evaluate", "--name", "demo", "--set", "evaluate.min_ceiling=0.99", "--wait")
    (scored,) = json.loads((run / "evaluation" / "scores.json").read_text())
    assert scored["rows"][0]["normalised_r"] != fold["rows"][0]["normalised_r"]
    assert scored["rows"][0]["model_r"] == fold["rows"][0]["model_r"]
    assert (run / "metrics.jsonl").read_bytes() == steps, "nothing is trained again"
    wait_until(lambda: not processes_of(cli.folder))


@pytest.mark.slow
def test_killed_training_resumes_bitwise(
    cli: Cli, tiny_options: list[str], demo_config: str
) -> None:
    """Three kills at arbitrary steps: the same weights, optimizer state and figures at the end."""
    options = [*tiny_options, "train.epochs=60", "train.keep_last=3"]
    cli("run", "preprocess", "calm", "--config", demo_config, *sets(options))
    cli("run", "train", "calm", "--ranks", "2")
    cli("run", "preprocess", "killed", "--config", demo_config, *sets(options))
    run = cli.runs / "killed"
    total = figures(cli.runs / "calm", "validation")[-1]["step"]
    kills = 0
    for share in (0.15, 0.4, 0.8):
        process = start(cli, "run", "train", "killed", "--ranks", "2")
        target = int(share * total)

        def far_enough(target: int = target, process: Any = process) -> bool:
            newest = sorted(run.glob("checkpoints/step-*"))
            far = bool(newest) and int(newest[-1].name[5:]) >= target
            return far or process.poll() is not None

        wait_until(far_enough)
        kills += process.poll() is None
        kill_all(process, run)
    assert kills == 3
    # As if the last kill had come between a commit and the pointer to the best.
    (run / "checkpoints" / "best").unlink(missing_ok=True)
    cli("run", "train", "killed", "--ranks", "2")
    assert not (run / "STOP").exists()
    assert_same_state(weights(cli.runs / "calm", total), weights(run, total))
    for kind in ("validation", "train"):
        assert figures(run, kind) == figures(cli.runs / "calm", kind)
    best = [(cli.runs / name / "checkpoints" / "best").read_text() for name in ("calm", "killed")]
    assert best[0] == best[1]


@pytest.mark.slow
def test_killed_preprocess_and_evaluate_go_on(
    cli: Cli, study_folder: Path, demo_config: str
) -> None:
    """What was finished is not made again, and the result is that of an undisturbed run."""
    results = {}
    for name in ("calm", "killed"):
        store = cli.folder / f"{name}.zarr"
        options = sets([f"study.root={study_folder}", f"study.store={store}", *TINY])
        first = ("run", "preprocess", name, "--config", demo_config, *options)
        if name == "killed":
            process = start(cli, *first)
            commits = store / ".giblet" / "commits"
            wait_until(lambda c=commits: len(list(c.rglob("[0-9]*.json"))) >= 8)
            kill_all(process, cli.runs / name)
            kept = {p: p.stat().st_mtime_ns for p in commits.rglob("[0-9]*.json")}
            assert len(kept) >= 8
            assert cli("store", "verify", str(store), check=False).returncode == 1
        cli(*first)
        if name == "killed":
            assert {p: p.stat().st_mtime_ns for p in kept} == kept
        assert cli("store", "verify", str(store)).stdout == "all shards are good\n"
        # A killed writer may leave an unfinished shard among the store's own files, for `store gc`.
        shards = {p.relative_to(store): p.read_bytes() for p in sorted(store.rglob("c.*"))
                  if p.is_file() and ".giblet" not in p.parts}  # fmt: skip
        assert shards
        results[name] = [shards]
        cli("run", "train", name, "--ranks", "2")
        evaluation = cli.runs / name / "evaluation"
        if name == "killed":
            process = start(cli, "run", "evaluate", name, "--ranks", "2")
            wait_until(lambda e=evaluation: (e / "predictions.npy").is_file())
            kill_all(process, cli.runs / name)
            made = (evaluation / "predictions.npy").stat().st_mtime_ns
            assert not (evaluation / "scores.json").exists()
        cli("run", "evaluate", name, "--ranks", "2")
        if name == "killed":
            assert (evaluation / "predictions.npy").stat().st_mtime_ns == made
        results[name] += [
            (evaluation / file).read_bytes() for file in ("predictions.npy", "ridge.npy")
        ]
        results[name].append(json.loads((evaluation / "scores.json").read_text()))
    assert results["calm"] == results["killed"]


@pytest.mark.slow
def test_cancel_stops_at_a_step_with_a_checkpoint(
    cli: Cli, tiny_options: list[str], demo_config: str
) -> None:
    options = sets([*tiny_options, "train.epochs=400", "train.checkpoint_every=100000"])
    cli("run", "preprocess", "long", "--config", demo_config, *options)
    cli("submit", "train", "--name", "long", "--ranks", "2")
    run = cli.runs / "long"
    wait_until(lambda: (run / "metrics.jsonl").is_file())
    again = cli("submit", "train", "--name", "long", "--ranks", "2")
    assert "running" in again.stdout
    time.sleep(1)
    cli("cancel", "long")
    paths = RunPaths(run)
    wait_until(lambda: paths.recorded_state("train")["status"] == "stopped")
    wait_until(lambda: not processes_of(cli.folder))
    assert list(run.glob("checkpoints/step-*"))
    assert not (run / "STOP").exists()


@pytest.mark.slow
def test_scans_shifted_by_60_trs_cannot_be_predicted(cli: Cli, demo_config: str) -> None:
    """The same study with and without its answer: r falls to nothing."""
    from giblet_hpc.synthetic import StudySpec, synthesize

    scores = {}
    for shift in (0, 60):
        data = cli.folder / f"data{shift}"
        spec = StudySpec(runs=(200, 140), subjects=2, grid=(7, 8, 6), shift_trs=shift)
        synthesize(data, spec)
        options = [f"study.root={data}", f"study.store={cli.folder}/{shift}.zarr", *TINY]
        options += ["train.epochs=40", "train.lr=3e-3", "features.audio=null", "bold.detrend=true"]
        name = f"shift{shift}"
        cli(
            "submit", "pipeline", "--name", name, "--config", demo_config, *sets(options),
            "--wait",
        )  # fmt: skip
        (fold,) = json.loads((cli.runs / name / "evaluation" / "scores.json").read_text())
        scores[shift] = {row["region"]: row for row in fold["rows"]}
    for predictor in ("model_r", "ridge_r"):
        assert scores[0]["text"][predictor] > 0.35
        for region in ("text", "video", "mixed"):
            # Two standard deviations of r between unrelated courses this long and this smooth.
            assert abs(scores[60][region][predictor]) < 0.2
        assert abs(scores[60]["all voxels"][predictor]) < 0.1
    assert abs(scores[0]["none"]["model_r"]) < 0.05


@pytest.mark.slow
def test_a_study_that_stays_in_its_store_gives_the_same_weights_and_scores(
    cli: Cli, tiny_options: list[str], demo_config: str
) -> None:
    found = {}
    for place in ("memory", "store"):
        options = ["--config", demo_config, "--name", place, *sets(tiny_options)]
        options += ["--set", f"train.place={place}", "--set", "bold.shifted_trs=2"]
        cli("submit", "pipeline", *options, "--ranks", "2", "--wait")
        run = cli.runs / place
        (fold,) = json.loads((run / "evaluation" / "scores.json").read_text())
        found[place] = weights(run, fold["step"]), fold
    assert_same_state(found["memory"], found["store"])
