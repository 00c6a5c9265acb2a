"""Training on two nodes of a real Slurm: equal to a local run, whatever happens to it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from giblet_hpc.jobs.record import excluded
from giblet_hpc.jobs.record.attempts import Attempt
from giblet_hpc.training import checkpoint
from tests.conftest import python_for_all
from tests.slurm.conftest import Prepared, SlurmCli, processes_of, queue, wait_until

pytestmark = pytest.mark.slurm
LENGTH = ["train.epochs=700", "train.validate_every=20", "train.checkpoint_every=10"]
TRAIN = ["--ranks", "2", "--nodes", "2"]


def submit(cli: SlurmCli, name: str, *more: str) -> str:
    cli("submit", "train", "--name", name, "--cluster", str(cli.profile), *TRAIN, *more)
    return str(cli.state(name, "train")["job"])


def step_of(cli: SlurmCli, name: str) -> int:
    """The step that the present attempt has reached; -1 before its first."""
    state = cli.state(name, "train")
    training = state.get("status") == "running" and state["phase"].startswith("training")
    return int(state["step"]) if training else -1


def final_weights(cli: SlurmCli, name: str) -> dict[str, Any]:
    folder = cli.paths(name).checkpoints()
    state = checkpoint.tensors_of(folder / (folder / "latest").read_text())
    return {name: values for name, values in state.items() if name.startswith("model/")}


def assert_same_weights(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    different = [key for key in a if not torch.equal(a[key], b[key])]
    assert not different


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, study_folder: Path, store: Path
) -> dict[str, Any]:
    """The weights of a local run of two ranks."""
    folder = tmp_path_factory.mktemp("calm")
    cli = SlurmCli(folder, folder / "none")
    Prepared(cli, study_folder, store)("calm", *LENGTH)
    cli("run", "train", "calm", "--ranks", "2")
    return final_weights(cli, "calm")


def test_two_nodes_of_four_ranks_equal_one_machine(slurm: SlurmCli, prepared: Prepared) -> None:
    for name in ("local", "cluster"):
        prepared(name, "train.epochs=30")
    slurm("run", "train", "local", "--ranks", "8")
    submit(slurm, "cluster", "--ranks", "8")
    slurm.wait("cluster", "train", "complete")
    assert_same_weights(final_weights(slurm, "cluster"), final_weights(slurm, "local"))
    (attempt,) = slurm.attempts("cluster", "train")
    assert {record["host"] for record in attempt.nodes().values()} == {"n1", "n2"}
    assert attempt.facts()["ranks_per_node"] == 4


def makes_steps(cli: SlurmCli, name: str) -> bool:
    """Whether the present attempt trains: its log says so seconds before the run's state does."""
    attempts = cli.attempts(name, "train")
    if not attempts or "ended" in attempts[-1].facts():
        return False
    log = attempts[-1].log(0)
    return log.is_file() and " train step " in log.read_text(errors="replace")


def preempt(cli: SlurmCli, name: str, *, hold: bool = False) -> None:
    """Have a job of a higher partition take the nodes for a second."""
    wait_until(lambda: makes_steps(cli, name))
    before = cli.attempts(name, "train")
    with held(cli, before[-1]) if hold else contextlib.nullcontext():
        subprocess.run(
            ["sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null",
             "--wrap=srun sleep 1"], check=True, capture_output=True,
        )  # fmt: skip
    wait_until(lambda: "ended" in before[-1].facts())
    wait_until(lambda: len(cli.attempts(name, "train")) > len(before))


@contextlib.contextmanager
def held(cli: SlurmCli, attempt: Attempt) -> Iterator[None]:
    """Stop the ranks until they are asked to end: Slurm may take longer than what they have left."""
    ranks = ranks_of(cli).values()
    for process in ranks:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
        wait_until(attempt.stop.exists, 60)
    finally:
        for process in ranks:
            os.kill(process, signal.SIGCONT)


def run_out_of_time(cli: SlurmCli, name: str, job: str) -> None:
    """Give a job a minute, with a lead of one: Slurm's signal comes when it next looks."""
    wait_until(lambda: makes_steps(cli, name))
    attempt = cli.attempts(name, "train")[-1]
    with held(cli, attempt):
        subprocess.run(["scontrol", "update", f"JobId={job}", "TimeLimit=1"], check=True)
    wait_until(lambda: "ended" in attempt.facts())
    # With a minute each, later attempts could be stopped before they begin.
    wait_until(lambda: any(f"{job} PENDING" in line for line in queue()))
    subprocess.run(["scontrol", "update", f"JobId={job}", "TimeLimit=10"], check=True)


def test_preempted_three_times_and_out_of_time(
    slurm: SlurmCli, prepared: Prepared, undisturbed: dict[str, Any]
) -> None:
    prepared("tried", *LENGTH)
    slurm.profile.write_text(slurm.profile.read_text().replace("hang_seconds: 12", ""))
    job = submit(slurm, "tried")
    for _ in range(3):
        preempt(slurm, "tried", hold=True)
    run_out_of_time(slurm, "tried", job)
    slurm.wait("tried", "train", "complete", 400)
    facts = [attempt.facts() for attempt in slurm.attempts("tried", "train")]
    causes = [f["why_asked"] for f in facts]
    assert causes.count("SIGTERM") >= 3, causes
    assert "SIGUSR2" in causes, causes
    assert {f["outcome"] for f in facts[:-1]} == {"interrupted"}
    for earlier, later in zip(facts, facts[1:], strict=False):
        assert later["step_from"] == earlier["step_to"], "no step is made twice"
    assert len({f["job"] for f in facts}) == 1, "one job, queued again"
    assert_same_weights(final_weights(slurm, "tried"), undisturbed)


def test_a_successor_goes_on_where_nodes_have_no_scontrol(
    slurm: SlurmCli, prepared: Prepared, undisturbed: dict[str, Any]
) -> None:
    """A chain of jobs queued beforehand; those that are not needed end at once."""
    prepared("chained", *LENGTH)
    slurm.profile.write_text(slurm.profile.read_text() + "requeue: successor\nsuccessors: 2\n")
    job = submit(slurm, "chained")
    assert len(queue()) == 3
    wait_until(lambda: step_of(slurm, "chained") > 10)
    subprocess.run(["scancel", "--signal=TERM", job], check=True)
    slurm.wait("chained", "train", "complete")
    facts = [attempt.facts() for attempt in slurm.attempts("chained", "train")]
    assert [f["outcome"] for f in facts[:2]] == ["interrupted", "complete"]
    assert len({f["job"] for f in facts[:2]}) == 2, "another job went on"
    assert facts[1]["step_from"] == facts[0]["step_to"] > 10
    wait_until(lambda: not queue())
    assert slurm.state("chained", "train")["status"] == "complete"
    assert_same_weights(final_weights(slurm, "chained"), undisturbed)


def test_a_killed_job_step_is_queued_again(
    slurm: SlurmCli, prepared: Prepared, undisturbed: dict[str, Any]
) -> None:
    prepared("struck", *LENGTH)
    job = submit(slurm, "struck")
    wait_until(lambda: step_of(slurm, "struck") > 10)
    subprocess.run(["scancel", "--signal=KILL", f"{job}.0"], check=True)
    wait_until(lambda: len(slurm.attempts("struck", "train")) == 2)
    first = slurm.attempts("struck", "train")[0].facts()
    assert first["outcome"] == "lost"
    assert "was killed" in first["reason"]
    slurm.wait("struck", "train", "complete")
    assert_same_weights(final_weights(slurm, "struck"), undisturbed)


def test_a_suspect_node_does_not_keep_a_run_waiting(
    slurm: SlurmCli, prepared: Prepared, undisturbed: dict[str, Any]
) -> None:
    """Two nodes are needed, there are two, one is suspect, and sinfo is silent at the requeue."""
    prepared("needy", *LENGTH)
    programs = slurm.folder / "bin"
    programs.mkdir()
    silent = programs / "sinfo"
    silent.write_text(f"#!/bin/sh\necho asked >>{programs}/asked\nexit 1\n")
    silent.chmod(0o755)
    excluded.remember(slurm.paths("needy"), ["n2"], reason="lost a job", hours=1)
    slurm.profile.write_text(f"{slurm.profile.read_text()}setup: ['export PATH={programs}:$PATH']")
    job = submit(slurm, "needy")
    wait_until(lambda: step_of(slurm, "needy") > 10)
    subprocess.run(["scancel", "--signal=KILL", f"{job}.0"], check=True)
    slurm.wait("needy", "train", "complete")
    assert (programs / "asked").exists()
    assert len(slurm.attempts("needy", "train")) == 2
    assert_same_weights(final_weights(slurm, "needy"), undisturbed)


def test_a_job_that_can_never_start_is_freed(slurm: SlurmCli, prepared: Prepared) -> None:
    """Its exclusion leaves too few nodes: `status` says so, and the command that it names helps."""
    prepared("stuck", "train.epochs=3")
    subprocess.run(
        ["sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null",
         "--job-name=blocker", "--wrap=srun sleep 600"], check=True, capture_output=True,
    )  # fmt: skip
    wait_until(lambda: any("RUNNING blocker" in line for line in queue()))
    job = submit(slurm, "stuck")
    excluded.remember(slurm.paths("stuck"), ["n2"], reason="lost a job", hours=1)
    subprocess.run(["scontrol", "update", f"JobId={job}", "ExcNodeList=n2"], check=True)
    subprocess.run(["scancel", "--name=blocker"], check=True)
    wait_until(lambda: "can never start as it is" in slurm("status", "stuck").stdout)
    said = slurm("status", "stuck").stdout
    assert "n2 until " in said
    assert "next       giblet-hpc resubmit stuck" in said
    assert slurm("resubmit", "stuck").returncode == 0
    slurm.wait("stuck", "train", "complete")
    assert slurm.state("stuck", "train")["job"] == job, "the job that waited"


def test_a_node_whose_slurmd_dies(cluster: Any, slurm: SlurmCli, prepared: Prepared) -> None:
    """Slurm gives up the node; what still runs on it ends, and the run goes on."""
    prepared("node", *LENGTH, "train.epochs=1500")
    submit(slurm, "node")
    wait_until(lambda: step_of(slurm, "node") > 10)
    cluster.kill("slurmd-n2")
    wait_until(lambda: "down" in node_states())
    wait_until(lambda: not processes_of(slurm.folder), 90)
    cluster.start_node("n2")
    slurm.wait("node", "train", "complete")
    first, second = (attempt.facts() for attempt in slurm.attempts("node", "train"))
    assert second["job"] == first["job"]
    assert 0 < second["step_from"] <= first["checkpoint_to"]


def node_states() -> str:
    done = subprocess.run(["sinfo", "-h", "-N", "-o", "%N %t"], capture_output=True, text=True)
    return done.stdout


def ranks_of(cli: SlurmCli) -> dict[int, int]:
    """Process ids by global rank."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes().decode(errors="replace")
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        first = re.search(r"(?:^|\0)GIBLET_FIRST_RANK=(\d+)", environment)
        rank = re.search(r"(?:^|\0)LOCAL_RANK=(\d+)", environment)
        if first and rank and str(cli.folder) in command:
            found[int(first[1]) + int(rank[1])] = int(entry.name)
    return found


def test_a_rank_that_hangs_is_named_and_the_run_goes_on(
    slurm: SlurmCli, prepared: Prepared, undisturbed: dict[str, Any]
) -> None:
    prepared("hung", *LENGTH)
    submit(slurm, "hung")
    wait_until(lambda: step_of(slurm, "hung") > 10)
    os.kill(ranks_of(slurm)[1], signal.SIGSTOP)
    wait_until(lambda: len(slurm.attempts("hung", "train")) == 2, 180)
    first = slurm.attempts("hung", "train")[0]
    assert first.facts()["outcome"] == "hung"
    assert re.search(
        r"no step for \d+ s after step \d+.*waiting for rank 1 ", first.facts()["reason"]
    )
    assert "Current thread" in first.log(0).read_text(), "stacks are in the log"
    last = json.loads(first.files.collectives(0).read_text())["collectives"]
    assert any("all_reduce" in one["profiling_name"] for one in last)
    assert not first.files.collectives(1).exists(), "it stood still"
    slurm.wait("hung", "train", "complete")
    assert_same_weights(final_weights(slurm, "hung"), undisturbed)


STRANGER = """
import pickle, os, socket, struct, sys
class Payload:
    def __reduce__(self):
        return os.mkdir, (sys.argv[1],)
loaded = pickle.dumps(Payload())
for place in sys.argv[2:]:
    host, _, port = place.rpartition(":")
    for content in (b"", os.urandom(4096), loaded, struct.pack("<Q", 1), bytes(2**16),
                    struct.pack("<IQ", 0, 2**40), struct.pack(">I", len(loaded)) + loaded):
        try:
            with socket.create_connection((host, int(port)), timeout=2) as there:
                there.sendall(content)
                there.settimeout(0.05)
                answer = there.recv(65536)
        except OSError as error:
            answer = type(error).__name__
        print(place, len(content), answer, flush=True)
"""


def listening(processes: set[int]) -> list[str]:
    """Return the addresses that processes listen on."""
    said = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
    found = []
    for line in said.splitlines():
        if {int(number) for number in re.findall(r"pid=(\d+)", line)} & processes:
            found.append(line.split()[3])
    return found


def test_a_stranger_who_sends_to_every_port_changes_nothing(
    slurm: SlurmCli, prepared: Prepared, undisturbed: dict[str, Any]
) -> None:
    """While ranks of two nodes train; nothing but their own gloo listens, on one interface."""
    prepared("scanned", *LENGTH)
    submit(slurm, "scanned")
    wait_until(lambda: step_of(slurm, "scanned") > 10)
    ranks = set(ranks_of(slurm).values())
    every = {int(entry.name) for entry in Path("/proc").glob("[0-9]*")}
    # srun listens too, as in any job: to what Slurm itself has signed.
    commands = {n: command_of(n) for n in every}
    ours = {n for n, c in commands.items() if str(slurm.folder) in c and not c.startswith("srun")}
    places = listening(ours)
    assert listening(ranks) == places, "neither torchrun nor a supervisor listens"
    assert len({place.rpartition(":")[0] for place in places}) == 1, places
    assert not [place for place in places if place.startswith(("*", "0.0.0.0", "["))], places
    mark = Path(f"/tmp/giblet-mark-{os.getpid()}")
    with python_for_all():
        attack = subprocess.run(
            [sys.executable, "-c", STRANGER, str(mark), *places], user=65534, group=65534,
            extra_groups=[], cwd="/", capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert len(attack.stdout.splitlines()) == 7 * len(places)
    slurm.wait("scanned", "train", "complete")
    assert not mark.exists()
    assert len(slurm.attempts("scanned", "train")) == 1
    assert_same_weights(final_weights(slurm, "scanned"), undisturbed)


def command_of(process: int) -> str:
    """Return a process's command; empty when it is gone."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


FAULT = """
import os, sys
if os.environ.get("GIBLET_FIRST_RANK") == "1":
    import threading
    def wait_and_break():
        import time
        from giblet_hpc.training import loop
        plain = loop.Trainer._train_step
        def broken(self):
            if self.step == 37:
                raise ZeroDivisionError("made up for a test")
            return plain(self)
        loop.Trainer._train_step = broken
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "giblet_hpc.stages.train":
                sys.meta_path.remove(self)
                wait_and_break()
    sys.meta_path.insert(0, Finder())
"""


def test_a_rank_that_raises_every_time(slurm: SlurmCli, prepared: Prepared) -> None:
    """It is tried again while checkpoints advance, then the run stops and says why."""
    prepared("broken", *LENGTH)
    folder = slurm.folder / "fault"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(FAULT)
    slurm.profile.write_text(
        slurm.profile.read_text().replace("{OMP", f"{{PYTHONPATH: {folder}, OMP")
    )
    submit(slurm, "broken")
    state = slurm.wait("broken", "train", "failed", 300)
    assert "rank 1 on" in state["reason"]
    assert "ZeroDivisionError: made up for a test" in state["reason"]
    assert "2 attempts without progress" in state["reason"]
    facts = [attempt.facts() for attempt in slurm.attempts("broken", "train")]
    assert [f["outcome"] for f in facts] == ["crashed"] * 3
    assert facts[0]["checkpoint_to"] > 0, "the first attempt made progress"
    wait_until(lambda: not queue())
    text = slurm("status", "broken").stdout
    assert "ZeroDivisionError" in text and "giblet-hpc logs broken" in text


def test_cancel_and_scancel_stop_for_good(slurm: SlurmCli, prepared: Prepared) -> None:
    for name, command in (("asked", "giblet"), ("scancelled", "slurm")):
        prepared(name, *LENGTH)
        job = submit(slurm, name)
        wait_until(lambda name=name: step_of(slurm, name) > 10)
        if command == "giblet":
            slurm("cancel", name)
        else:
            subprocess.run(["scancel", job], check=True)
        state = slurm.wait(name, "train", "stopped")
        wait_until(lambda: not queue())
        time.sleep(1)
        assert not queue(), "it is not queued again"
        assert state["step"] == slurm.paths(name).checkpoint_step(), "with a checkpoint"
    assert not processes_of(slurm.folder)


def test_one_of_two_submissions_wins(slurm: SlurmCli, prepared: Prepared) -> None:
    prepared("wanted", *LENGTH)
    command = slurm.command(
        "submit", "train", "--name", "wanted", "--cluster", str(slurm.profile), *TRAIN
    )
    both = [
        subprocess.Popen(
            command, cwd=slurm.folder, env={**os.environ, "GIBLET_RUNS": str(slurm.runs)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    said = [process.communicate()[1] for process in both]
    assert sum("submitted train" in text for text in said) == 1, said
    assert sum("run wanted is in use: " in text for text in said) == 1, said
    (other,) = [text for text in said if "in use" in text]
    assert "root" in other
    assert len(queue()) == 1
    again = slurm("submit", "train", "--name", "wanted", "--cluster", str(slurm.profile), *TRAIN)
    assert "in use: slurm job" in again.stderr
    slurm("cancel", "wanted")
