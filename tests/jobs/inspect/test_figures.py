"""Lines of figures, one of which is being written."""

from __future__ import annotations

from giblet_hpc.files import write_json
from giblet_hpc.jobs.inspect import measured
from giblet_hpc.jobs.record.attempts import begin
from giblet_hpc.jobs.schedulers.base import Place
from giblet_hpc.runs import figures
from giblet_hpc.runs.paths import RunPaths


def test_folds_have_files_of_their_own(paths: RunPaths) -> None:
    assert figures.files(paths) == {}
    paths.metrics("one").write_text('{"kind": "train", "loss": 1}\n{"kind": "tra')
    paths.metrics("two").write_text("")
    found = figures.files(paths)
    assert list(found) == ["one", "two"]
    assert figures.rows(found["one"]) == [{"kind": "train", "loss": 1}]


def test_what_training_was_seen_to_use(paths: RunPaths) -> None:
    assert measured.of_training(paths) == measured.Measured()
    paths.metrics().write_text('{"kind": "train", "peak_gib_allocated": 2.5}\n')
    attempt = begin(paths, Place("slurm", "7"), "train", {"memory_gb": 64})
    for node, held in enumerate((5, 9)):
        attempt.note_node(node, host=f"n{node}", peak_memory=held)
    write_json(attempt.files.node(2), {"host": "n3"})
    assert measured.of_training(paths) == measured.Measured(2.5 * 2**30, 9, 64)
