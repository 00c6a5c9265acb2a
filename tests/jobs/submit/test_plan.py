from __future__ import annotations

from giblet_hpc.config.cluster import Cluster
from giblet_hpc.jobs.profiles import local_cluster
from giblet_hpc.jobs.record.resources import Resources
from giblet_hpc.jobs.submit.plan import plan
from giblet_hpc.runs.paths import STAGES, RunPaths
from giblet_hpc.subjects import PreprocessPart

PARTS = [PreprocessPart("subject-1", False), PreprocessPart("run1-audio", True)]
GPUS = Cluster(name="c", gpus_per_node=4)


def test_a_pipeline_is_a_graph(paths: RunPaths) -> None:
    jobs = plan(paths, STAGES, profile=GPUS, size=Resources(4, 2, 4), parts=PARTS)
    assert [[task.part for task in job.tasks] for job in jobs] == [
        ["plan"], ["subject-1"], ["run1-audio"], [""], [""], [""],
    ]  # fmt: skip
    assert [job.after for job in jobs] == [
        (), (("success", 0),), (("success", 0),), (("end", 1), ("end", 2)), (("success", 3),),
        (("success", 4),),
    ]  # fmt: skip
    assert [job.resources.gpus for job in jobs] == [0, 0, 1, 0, 4, 4]
    assert [job.resources.nodes for job in jobs] == [1, 1, 1, 1, 2, 2]


def test_without_gpus_all_parts_are_one_array(paths: RunPaths) -> None:
    jobs = plan(paths, ("preprocess",), profile=Cluster(name="c"), size=Resources(1), parts=PARTS)
    assert [len(job.tasks) for job in jobs] == [1, 2, 1]


def test_one_machine_runs_all_stages_in_one_job(paths: RunPaths) -> None:
    (job,) = plan(paths, STAGES, profile=local_cluster(), size=Resources(2))
    assert job.tasks[0].stages == STAGES
    assert plan(paths, (), profile=local_cluster(), size=Resources(2)) == ()


def test_a_chain_of_successors(paths: RunPaths) -> None:
    profile = Cluster(name="c", requeue="successor", successors=2)
    jobs = plan(paths, ("train", "evaluate"), profile=profile, size=Resources(1))
    assert [job.after for job in jobs] == [
        (), (("end", 0),), (("end", 1),), (("success", 2),)
    ]  # fmt: skip
