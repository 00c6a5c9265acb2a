"""What is made of Slurm's answers, and of its silence: recorded, as its versions print them."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from giblet_hpc.config.cluster import Cluster
from giblet_hpc.errors import JobError
from giblet_hpc.jobs.schedulers import slurm_commands, slurm_submit, slurm_survey
from giblet_hpc.jobs.schedulers.base import NO_ANSWER, NoAnswer, Order, Place
from giblet_hpc.jobs.schedulers.slurm import Slurm, first_host
from giblet_hpc.jobs.schedulers.slurm_submit import dependency, parameters, submitted_id

ME = getpass.getuser()
TIMED_OUT = "slurm_load_jobs error: Socket timed out on send/recv operation\n"
GONE = "slurm_load_jobs error: Invalid job id specified\n"
Answers = Callable[..., None]
Asked = Callable[[], list[str]]


def test_only_this_users_jobs_of_these_ids_are_asked_for(slurm_says: Answers, asked: Asked) -> None:
    slurm_says("squeue", "7|RUNNING|None|2026-01-01T00:00:00\n8_3|PENDING|(Resources)|N/A\n")
    found = Slurm().jobs(["7", "8_3", "9"], ME)
    assert found is not NO_ANSWER
    assert set(found) == {"7", "8_3"}
    assert not found["7"].waits
    assert found["8_3"].waits
    assert found["8_3"].waiting_for == "waiting for free nodes (Resources)"
    (question,) = asked()
    assert f"--user={ME}" in question
    assert "--jobs=7,8,9" in question


@pytest.mark.parametrize(
    ("err", "rc", "answer"), [(TIMED_OUT, 1, NO_ANSWER), (GONE, 1, {}), ("", 0, {})]
)
def test_no_answer_is_not_an_empty_one(
    slurm_says: Answers, err: str, rc: int, answer: object
) -> None:
    slurm_says("squeue", err=err, rc=rc)
    assert Slurm().jobs(["7"], ME) == answer


def test_a_command_that_hangs_or_is_missing_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_commands, "SECONDS", 0.2)
    (tmp_path / "squeue").write_text("#!/bin/sh\nexec /bin/sleep 5\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Slurm().jobs(["7"], ME) is NO_ANSWER
    assert Slurm().usable_nodes(None) is NO_ANSWER
    assert not Slurm().installed()


def test_jobs_of_others_may_be_hidden(slurm_says: Answers) -> None:
    slurm_says("squeue", "")
    assert Slurm().jobs(["7"], "somebody-else") is NO_ANSWER


@pytest.mark.parametrize("reason", ["BadConstraints", "(BadConstraints)", "PartitionNodeLimit"])
def test_what_can_never_start(slurm_says: Answers, reason: str) -> None:
    slurm_says("squeue", f"7|PENDING|{reason}|N/A\n")
    found = Slurm().jobs(["7"], ME)
    assert found is not NO_ANSWER
    assert found["7"].unsatisfiable


SHOWN = "JobId=7 JobName=x JobState={state} Reason={reason} Dependency=(null) Restarts={restarts} ExitCode=0:0\n"


@pytest.mark.parametrize(
    ("state", "reason", "restarts", "expected"),
    [
        ("RUNNING", "None", 1, "runs"),
        ("COMPLETING", "None", 1, "cancelled"),
        ("CANCELLED", "None", 1, "cancelled"),
        ("COMPLETING", "NodeFail", 2, "requeued"),
        ("COMPLETING", "TimeLimit", 1, "out of time"),
        ("COMPLETING", "NonZeroExitCode", 1, "script killed"),
        ("COMPLETING", "JobLaunchFailure", 1, "script killed"),
        ("COMPLETING", "RaisedSignal:9(Killed)", 1, "script killed"),
    ],
)
def test_what_becomes_of_a_job(
    slurm_says: Answers, state: str, reason: str, restarts: int, expected: str
) -> None:
    slurm_says("scontrol", SHOWN.format(state=state, reason=reason, restarts=restarts))
    assert Slurm().disposition("7", 1) == expected


def test_a_silent_controller_decides_nothing(slurm_says: Answers) -> None:
    slurm_says("scontrol", err="slurm_load_jobs error: Unable to contact slurm controller\n", rc=1)
    assert Slurm().disposition("7", 0) is NO_ANSWER
    assert not Slurm().requeue("7")
    assert Slurm().ended("7") is NO_ANSWER


def test_how_a_job_ended(slurm_says: Answers) -> None:
    slurm_says("sacct", "CANCELLED by 1000\n")
    ended = Slurm().ended("7")
    assert ended is not None and ended is not NO_ANSWER
    assert ended.state == "CANCELLED"
    slurm_says("sacct", err="Slurm accounting storage is disabled\n", rc=1)
    slurm_says("scontrol", err=GONE, rc=1)
    assert Slurm().ended("7") is None


def test_nodes_that_are_down_do_not_count(slurm_says: Answers, asked: Asked) -> None:
    slurm_says("sinfo", "main*|2|idle\nmain*|1|mix\nmain*|3|down*\nmain*|1|drain\nbig|9|idle\n")
    assert Slurm().usable_nodes(None) == 3
    slurm_says("sinfo", "big|9|alloc\nbig|1|drng\n")
    assert Slurm().usable_nodes("big") == 9
    assert "--partition=big" in asked()[-1]


def order(**more: object) -> Order:
    class Work:
        run_folder, title = "/runs/a run", "train"

        def __call__(self) -> int:
            return 0

    plain: dict[str, object] = {
        "works": [Work()], "nodes": 1, "cpus": 4, "gpus": 0, "memory_gb": None, "minutes": 60,
        "partition": None, "submissions": Path("/runs/a run/attempts/submitit"),
    }  # fmt: skip
    return Order(**{**plain, **more})  # type: ignore[arg-type]


def test_flags_have_no_value() -> None:
    profile = Cluster(name="c", options={"exclusive": None, "reservation": "movie", "nice": 5})
    found = parameters(profile, order())["additional_parameters"]
    assert found["exclusive"] is True
    script = Slurm().script(profile, order())
    assert "#SBATCH --exclusive\n" in script
    assert "#SBATCH --reservation=movie\n" in script
    assert "#SBATCH --nice=5\n" in script


def test_dependencies() -> None:
    after = [("success", "7"), ("end", "8"), ("end", "9")]
    assert dependency(order(after=after)) == "afterok:7,afterany:8:9"
    assert dependency(order()) == ""
    assert dependency(order(after=[("task", "12")])) == "aftercorr:12"


@pytest.mark.parametrize(
    ("said", "job"),
    [
        ("Submitted batch job 4711\n", "4711"),
        ("Welcome to job 7 of 9!\nSubmitted batch job 4711\n", "4711"),
        ("Submitted batch job 4711 on cluster two\n", "4711"),
        ("4711;two\n", "4711"),
        ("Submitted batch job 1\nSubmitted batch job 2\n", "2"),
    ],
)
def test_the_id_is_what_the_last_line_says(said: str, job: str) -> None:
    assert submitted_id(said) == job


def test_no_id_is_an_error() -> None:
    with pytest.raises(JobError, match="named no job: your job 7 was held"):
        submitted_id("your job 7 was held\n")


def test_only_what_slurm_sets_is_hidden_from_a_submission(monkeypatch: pytest.MonkeyPatch) -> None:
    users = {"SLURM_CONF": "/etc/x", "SBATCH_ACCOUNT": "lab", "SLURM_TIME_FORMAT": "%s"}
    jobs = {"SLURM_JOB_ID": "7", "SLURM_CPU_BIND": "cores", "SLURM_MEM_PER_NODE": "1"}
    for name, value in {**users, **jobs}.items():
        monkeypatch.setenv(name, value)
    with slurm_submit._outside_of_jobs():
        assert {name: os.environ.get(name) for name in users} == users
        assert not set(jobs) & set(os.environ)
    assert {name: os.environ.get(name) for name in jobs} == jobs


def test_a_place_in_a_job_and_in_its_script(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "2",
        "SLURM_RESTART_COUNT": "3", "SLURM_NODEID": "1", "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "gpu[007-008]", "SLURMD_NODENAME": "gpu008",
        "SUBMITIT_EXECUTOR": "slurm", "SLURM_SUBMIT_HOST": "login1", "SLURM_JOB_END_TIME": "99",
    }  # fmt: skip
    for name in list(os.environ):
        if name.startswith("SLURM"):
            monkeypatch.delenv(name)
    assert Slurm().own_job() is None
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Slurm().own_job() == Place("slurm", "10_2", 3, 1, 2, "gpu007", "gpu008")
    assert Slurm().script_job() == (Place("slurm", "10_2", 3), 2)
    assert Slurm().end_time() == 99.0
    assert Slurm().submit_host() == "login1"
    assert Slurm().facts()["SLURM_ARRAY_JOB_ID"] == "10"
    assert Slurm().group("10_2") == "10"
    assert Slurm().cancel_command(["10_1", "10_2", "11"]) == "scancel 10 11"


CONFIG = "ClusterName             = fake\nSLURM_VERSION           = 23.11.4\nKillWait                = 30 sec\nPreemptMode             = REQUEUE\n"


def test_a_profile_is_detected_from_what_slurm_says(slurm_says: Answers) -> None:
    slurm_says("sinfo", "cpu|1-00:00:00|4|64|256000|(null)\n"
                        "gpu*|2-00:00:00|8|64|512000+|gpu:a100:4(S:0-1),nvme:1\n")  # fmt: skip
    slurm_says("scontrol", CONFIG)
    text = Slurm().profile_text("fake", None, probe=False)
    for line in ("partition: gpu  # 8 nodes", "gpus_per_node: 4", "gpu_type: a100",
                 "cpus_per_node: 64", "memory_gb_per_node: 475", "requeue: same-job",
                 "time: '2-00:00:00'"):  # fmt: skip
        assert line in text
    with pytest.raises(JobError, match="no partition none") as caught:
        Slurm().profile_text("fake", "none", probe=False)
    assert "cpu, gpu" in caught.value.hint
    slurm_says("sinfo", rc=1)
    with pytest.raises(JobError, match="does not answer"):
        slurm_survey.partitions()


def test_problems_of_a_partition(slurm_says: Answers) -> None:
    slurm_says("sinfo", "main*|2|idle\n")
    assert [level for level, *_ in Slurm().problems(None)] == ["ok"]
    slurm_says("sinfo", "")
    assert [level for level, *_ in Slurm().problems("none")] == ["fail"]
    slurm_says("scontrol", rc=1)
    ((level, seen, _),) = Slurm().problems("main")
    assert (level, seen) == ("fail", "the controller does not answer")


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu[007-012,020]", "gpu007"),
        ("a,b", "a"),
        ("rack[1-2]-n[03,05]", "rack1-n03"),
        ("n7", "n7"),
    ],
)
def test_first_host(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_limits_of_partitions(slurm_says: Answers) -> None:
    slurm_says("sinfo", "cpu|1-00:00:00|4|64|256000|(null)\ngpu*|2:30:00|9|64|256000|gpu:a40:8\n"
                        "long|infinite|2|64|256000|(null)\n")  # fmt: skip
    slurm = Slurm()
    assert slurm.limits(None) == (9, 150)
    assert slurm.limits("cpu") == (4, 1440)
    assert slurm.limits("cpu,gpu") == (9, 1440)
    assert slurm.limits("cpu,long") == (4, 0)
    assert isinstance(slurm.limits("other"), NoAnswer)
    slurm_says("sinfo", rc=1)
    assert isinstance(slurm.limits(None), NoAnswer)
