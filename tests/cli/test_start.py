from __future__ import annotations

import pytest

from giblet_hpc.cli import start, target
from giblet_hpc.config.cluster import Cluster
from giblet_hpc.errors import ConfigError, JobError
from giblet_hpc.jobs.profiles import local_cluster
from giblet_hpc.jobs.record.resources import Resources
from giblet_hpc.jobs.record.task import StageTask
from giblet_hpc.jobs.submit.plan import PlannedJob
from giblet_hpc.runs.paths import RunPaths


def test_one_machine_has_nobody_to_ask_for_time() -> None:
    with pytest.raises(ConfigError, match="--sweep needs a cluster"):
        start.check_choices(local_cluster(), {"time": None, "axes": ("train.lr=1,2",)})
    start.check_choices(Cluster(name="c"), {"time": "1:00:00"})


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ({"status": "stopped"}, JobError),
        ({"status": "failed", "reason": "x", "exit_code": 2}, ConfigError),
        ({"status": "failed", "reason": "x", "exit_code": 1}, JobError),
    ],
)
def test_a_stage_that_failed_is_an_error_of_the_command(
    run_folder: RunPaths, state: dict[str, object], kind: type[Exception]
) -> None:
    run_folder.update_state("train", **state)
    with pytest.raises(kind):
        start.raise_failure(run_folder, ("train",))


@pytest.mark.parametrize("name", ["a", "ann's run", "x.1"])
def test_names_that_folders_can_have(name: str) -> None:
    assert target.check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "../up", "a/b", "-x", ".hidden", "a\nb"])
def test_names_that_they_cannot(name: str) -> None:
    with pytest.raises(ConfigError):
        target.check_name(name)


def test_on_how_much_a_submission_runs() -> None:
    small = PlannedJob((StageTask("r", ("preprocess",), Resources(1), part="plan"),), Resources(1))
    tasks = tuple(StageTask("r", ("preprocess",), Resources(1), part=str(n)) for n in range(3))
    size = Resources(8, nodes=2, gpus=8, minutes=1440)
    jobs = [small, PlannedJob(tasks, Resources(1)),
            PlannedJob((StageTask("r", ("train",), size),), size)]  # fmt: skip
    assert start.in_words(jobs) == (
        "  preprocess 3 tasks, 1 rank, no GPU\n"
        "  train      8 ranks on each of 2 nodes, 8 GPUs a node, at most 24.0 h"
    )


def test_who_stops_waiting_is_told_that_the_run_goes_on(
    run_folder: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(start.logs, "follow", interrupted)
    with pytest.raises(JobError, match="run movie goes on") as found:
        start._show_until_the_end(run_folder, set())
    assert "cancel movie" in found.value.hint


def test_choices_become_a_setting() -> None:
    found = start.with_choices(("train.lr=1",), ("loss.map_penalty=3,10", "train.epochs=5,9"))
    assert found == ("train.lr=1", "train.choose={loss.map_penalty: [3, 10], train.epochs: [5, 9]}")
    assert start.with_choices(("a=1",), ()) == ("a=1",)
    with pytest.raises(ConfigError, match="--choose 'train.lr' is not field=value,value"):
        start.with_choices((), ("train.lr",))
    with pytest.raises(ConfigError, match="names a field twice"):
        start.with_choices((), ("train.lr=1,2", "train.lr=3,4"))
