"""Pipelines, sweeps, ordinary users, drills and tunnels on a real Slurm."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest

from giblet_hpc.files import read_json
from giblet_hpc.jobs.record import lease
from tests.conftest import leave_out
from tests.slurm.conftest import (
    Prepared,
    SlurmCli,
    options_of,
    queue,
    wait_until,
)

pytestmark = pytest.mark.slurm
TWO = ["--ranks", "2", "--nodes", "2"]


def test_a_failing_part_keeps_the_others(
    slurm: SlurmCli, study_folder: Path, tmp_path: Path
) -> None:
    """Raw files to report in one command; one subject's scan is bad at first."""
    data = tmp_path / "data"
    shutil.copytree(study_folder, data)
    scan = data / "sub-02_run1.nii.gz"
    good = scan.read_bytes()
    image = nibabel.load(scan)
    values = image.get_fdata(dtype=np.float32)
    values[3, 4, 3, 7] = np.nan
    nibabel.save(nibabel.Nifti1Image(values, image.affine, image.header), scan)
    store = tmp_path / "store.zarr"
    options = [*options_of(data, store, ["train.epochs=3", "bold.mask=regions.nii.gz"])]
    options += ["--name", "whole"]
    cluster = ["--cluster", str(slurm.profile), *TWO]
    slurm("submit", "pipeline", *options, *cluster)
    state = slurm.wait("whole", "preprocess", "failed")
    assert "hold NaN or infinity" in state["reason"]
    parts = json.loads(slurm("status", "whole", "--json").stdout)["stages"]["preprocess"]["parts"]
    assert {name for name, part in parts.items() if part["status"] != "complete"} == {"subject-02"}
    assert "NaN" in parts["subject-02"]["reason"]
    wait_until(lambda: not queue())
    assert "subject-02" in slurm("status", "whole").stdout
    assert slurm.state("whole", "train")["status"] == "not started"
    before = {
        path: path.stat().st_mtime_ns
        for path in store.rglob("*.json")
        if "commits" in path.parts and "02" not in path.name and "02" not in path.parent.name
    }
    scan.write_bytes(good)
    numbers = [attempt.number for attempt in slurm.attempts("whole", "preprocess")]
    slurm("resubmit", "whole")
    slurm.wait("whole", "evaluate", "complete", 300)
    redone = [
        attempt.facts()["part"]
        for attempt in slurm.attempts("whole", "preprocess")
        if attempt.number > max(numbers)
    ]
    assert redone == ["plan", "subject-02", ""]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (slurm.runs / "whole" / "report.html").is_file()
    (row,) = json.loads(slurm("runs", "--efficiency", "--json").stdout)
    train = row["stages"]["train"]
    assert train["memory_gib"]["used"] > 0.1
    assert (train["attempts"], train["lost_steps"], train["complete"]) == (1, 0, True)
    assert train["waited_seconds"] >= 0
    assert "used       train" in slurm("status", "whole").stdout
    provenance = read_json(slurm.runs / "whole" / "provenance.json")
    last = provenance["attempts"][-1]
    assert last["job"]["SLURM_JOB_NODELIST"] == "n[1-2]"
    assert last["packages"]["torch"].startswith("2.13")
    wait_until(lambda: lease.holder(slurm.paths("whole")) is None)
    again = slurm("submit", "pipeline", *options, *cluster)
    assert "already complete" in again.stderr
    assert not queue()


def test_sweep_as_one_array_and_compare(slurm: SlurmCli, prepared: Prepared) -> None:
    prepared("base", "train.epochs=3")
    done = slurm(
        "submit", "train", "--name", "base", "--cluster", str(slurm.profile),
        "--sweep", "train.lr=1e-4,3e-4", "--sweep", "model.bottleneck=8,16", "--nodes", "2",
        "--ranks", "2", "--json",
    )  # fmt: skip
    rows = json.loads(done.stdout)
    assert len({row["job"].split("_")[0] for row in rows}) == 1, "one array"
    assert [row["run"] for row in rows] == [
        "base-lr-1e-4-bottleneck-8", "base-lr-1e-4-bottleneck-16",
        "base-lr-3e-4-bottleneck-8", "base-lr-3e-4-bottleneck-16",
    ]  # fmt: skip
    for row in rows:
        slurm.wait(row["run"], "evaluate", "complete")
    table = json.loads(slurm("compare", *(row["run"] for row in rows), "--json").stdout)
    assert [(row["train.lr"], row["model.bottleneck"]) for row in table] == [
        (0.0001, 8), (0.0001, 16), (0.0003, 8), (0.0003, 16),
    ]  # fmt: skip
    assert {row["train"] for row in table} == {"complete"}
    assert all(row["model_r"] is not None for row in table), "a sweep is scored"


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [("preempt", "interrupted"), ("walltime", "interrupted"), ("kill-node", "lost")],
)
def test_drills(slurm: SlurmCli, prepared: Prepared, fault: str, outcome: str) -> None:
    """Notice costs no step; a kill costs what was made since the last checkpoint."""
    # Long enough to be under way when the walltime's notice comes.
    epochs = 6000 if fault == "walltime" else 500
    prepared(
        "drilled", f"train.epochs={epochs}", "train.validate_every=20", "train.checkpoint_every=25"
    )
    slurm("submit", "train", "--name", "drilled", "--cluster", str(slurm.profile), *TWO)
    watching = subprocess.Popen(
        slurm.command("watch", "drilled", "--every", "0.5"), cwd=slurm.folder, text=True,
        env={**os.environ, "GIBLET_RUNS": str(slurm.runs)}, stdout=subprocess.PIPE,
    )  # fmt: skip
    wait_until(lambda: slurm.state("drilled", "train").get("step", 0) > 25)
    wait_until(lambda: slurm.paths("drilled").metrics().is_file())
    live = json.loads(slurm("health", "drilled", "--json", check=False).stdout)
    looked = {one["check"]: one["level"] for one in live[0]["findings"]}
    assert looked["component shares"] == looked["statistics"] == "ok"
    cost = json.loads(slurm("drill", fault, "drilled", "--json").stdout)
    assert cost["outcome"] == outcome
    assert cost["step_after"] > 0
    if fault == "kill-node":
        assert cost["steps_lost"] >= 0
        step = cost["step_after"]
        assert step % 25 == 0 or step % 20 == 0, "from a checkpoint, or the best validation's"
    else:
        assert cost["steps_lost"] == 0
        assert cost["step_before"] == cost["step_after"]
    slurm("cancel", "drilled")
    slurm.wait("drilled", "train", "stopped")
    lines = watching.communicate(timeout=60)[0].splitlines()
    assert any(line.startswith("drilled train: running; ") and " to go" in line for line in lines)
    assert any(line.startswith("drilled figures: loss ") for line in lines)
    assert any("event: " in line and f"attempt 1: {outcome}" in line for line in lines), lines
    assert lines[-1].startswith("drilled ") and "stopped" in "\n".join(lines[-8:])


def test_status_says_why_a_job_waits(slurm: SlurmCli, prepared: Prepared) -> None:
    prepared("waiting", "train.epochs=3")
    subprocess.run(
        ["sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null",
         "--wrap=srun sleep 600"], check=True, capture_output=True,
    )  # fmt: skip
    wait_until(lambda: any("RUNNING" in line for line in queue()))
    slurm("submit", "train", "--name", "waiting", "--cluster", str(slurm.profile), *TWO)
    wait_until(lambda: "waiting for free nodes" in slurm("status", "waiting").stdout, 60)
    slurm("cancel", "waiting")
    assert slurm.state("waiting", "train")["status"] == "stopped"


def test_detected_profile_is_valid(slurm: SlurmCli) -> None:
    text = slurm("cluster", "detect", "--output", "-", "--probe").stdout
    assert "partition: main  # 2 nodes" in text
    assert "gpus_per_node: 8" in text
    assert "Preemption: REQUEUE; GraceTime of the partition: 30 s" in text
    assert "scontrol on compute nodes: yes\n" in text
    file = slurm.folder / "found.yaml"
    slurm("cluster", "detect", "--output", str(file))
    assert "cpus_per_node: 8" in slurm("cluster", "show", str(file)).stdout


def test_the_doctor_measures_between_nodes(slurm: SlurmCli) -> None:
    slurm.runs.mkdir(exist_ok=True)
    command = ["doctor", "--cluster", str(slurm.profile), "--ranks", "4", "--nodes", "2", "--job"]
    found = json.loads(slurm(*command, "--json").stdout)
    assert not [row for row in found if row["level"] == "fail"]
    seen = [row["seen"] for row in found if row["check"] == "all-reduce"]
    assert len(seen) == 4
    assert "1 MiB inside a node by gloo" in seen[0]
    assert "32 MiB over 4 ranks by gloo" in seen[-1]
    shared = [row["seen"] for row in found if row["check"] == "shared files"]
    assert [seen[:3] for seen in shared] == ["n1:", "n2:"]
    assert all("files of all 2 nodes were there" in seen for seen in shared)
    (clocks,) = [row for row in found if row["check"] == "clocks"]
    assert clocks["seen"].startswith("the clocks of 2 nodes are at most 0.")
    # The network was a hundred times as fast once, says the record.
    record = slurm.runs / ".doctor" / "baselines.json"
    baselines = json.loads(record.read_text())
    (best,) = baselines.values()
    best["all 33554432"] *= 100
    record.write_text(json.dumps(baselines))
    again = slurm(*command, check=False)
    assert again.returncode == 1
    assert re.search(r"fail\s+all-reduce: 32 MiB over 4 ranks.*; it was", again.stdout)
    assert slurm("runs").stdout.count(".doctor") == 0


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A real sshd on loopback and the key that opens it."""
    program = shutil.which("sshd") or "/usr/sbin/sshd"
    if not Path(program).exists():
        leave_out("slurm", "needs sshd; slurm/testcluster/install.sh installs it")
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True
        )
    keys = Path(f"/tmp/giblet-keys-{os.getpid()}")
    keys.mkdir(mode=0o700)
    (keys / "authorized").write_text((tmp_path / "user.pub").read_text())
    (keys / "authorized").chmod(0o600)
    Path("/run/sshd").mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {
        "Port": port, "ListenAddress": "127.0.0.1", "HostKey": tmp_path / "host",
        "AuthorizedKeysFile": keys / "authorized", "StrictModes": "no", "UsePAM": "no",
        "PasswordAuthentication": "no", "PidFile": "none", "PermitRootLogin": "yes",
    }  # fmt: skip
    arguments = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
    server = subprocess.Popen([program, "-D", "-e", "-f", "/dev/null", *arguments],
                              stderr=subprocess.DEVNULL)  # fmt: skip
    wait_until(lambda: answers(port), 20)
    yield port, tmp_path / "user"
    server.terminate()
    server.wait()
    shutil.rmtree(keys)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_tensorboard_through_a_tunnel(
    slurm: SlurmCli, prepared: Prepared, sshd: tuple[int, Path]
) -> None:
    """The printed line is used as it is printed, but for the key and the port of this sshd."""
    port, key = sshd
    prepared("curves", "train.epochs=2")
    slurm("run", "train", "curves", "--ranks", "1")
    with contextlib.ExitStack() as stack:
        server = subprocess.Popen(
            slurm.command("tensorboard", "curves", "--login", f"{getpass.getuser()}@127.0.0.1"),
            cwd=slurm.folder,
            env={**os.environ, "GIBLET_RUNS": str(slurm.runs)},
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        stack.callback(lambda: (server.terminate(), server.wait(), server.stdout.close()))
        line, address = server.stdout.readline(), server.stdout.readline()
        served = re.search(r"ssh -N -L (\d+):127\.0\.0\.1:\1 \S+@127\.0\.0\.1$", line.strip())
        assert served, line
        inner = int(served[1])
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            outer = probe.getsockname()[1]
        command = line.split(":", 1)[1].split()
        assert command[0] == "ssh"
        # Both ends of this tunnel are one machine, so the near end needs another port.
        command[3] = f"{outer}:127.0.0.1:{inner}"
        options = ["-i", str(key), "-p", str(port), "-o", "StrictHostKeyChecking=no",
                   "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]  # fmt: skip
        tunnel = subprocess.Popen([command[0], *options, *command[1:]])
        stack.callback(lambda: (tunnel.terminate(), tunnel.wait()))
        wait_until(lambda: answers(inner) and answers(outer), 60)
        prefix = re.search(rf"http://localhost:{inner}(/[\w-]{{22}})/$", address.strip())[1]
        served = f"http://127.0.0.1:{outer}"
        with urllib.request.urlopen(f"{served}{prefix}/data/runs", timeout=30) as page:
            found = json.loads(page.read())
        for guess in ("", "/data/runs", "/guess/data/runs"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"{served}{guess}", timeout=30)
        seen = [file.read_text() for file in Path("/proc").glob("[0-9]*/cmdline")]
        assert not [words for words in seen if prefix in words], "every user sees these"
        assert any(name.startswith("curves") for name in found), found
        listening = subprocess.run(["ss", "-ltn"], capture_output=True, text=True).stdout
        assert f"127.0.0.1:{inner}" in listening
        assert f"0.0.0.0:{inner}" not in listening


def test_reproduce_says_that_a_run_comes_out_the_same(slurm: SlurmCli, prepared: Prepared) -> None:
    prepared("first", "train.epochs=3")
    slurm("submit", "pipeline", "--name", "first", "--cluster", str(slurm.profile), *TWO)
    slurm.wait("first", "evaluate", "complete")
    slurm("reproduce", "first")
    slurm.wait("first-reproduced", "evaluate", "complete")
    facts = json.loads(slurm("reproduce", "first", "--json").stdout)
    assert facts["same"], facts
    assert facts["score_difference"] == 0
