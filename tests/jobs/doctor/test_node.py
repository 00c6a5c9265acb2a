"""What a node of the doctor's job makes of the others, and of the image."""

from __future__ import annotations

import threading
from pathlib import Path

from giblet_hpc.jobs.doctor import node as nodecheck
from giblet_hpc.jobs.record.attempts import Place

PLACE = Place("slurm", "7", nodes=3)
GOOD = "ok   packages: 21 packages\nok   verbs: with providers\nok   gpu: skipped: no GPU\n"


def test_nodes_that_write_are_seen_as_soon_as_they_do(tmp_path: Path) -> None:
    for node in range(2):
        (tmp_path / f"hello-{node}").touch()
    threading.Timer(1.0, (tmp_path / "hello-2").touch).start()
    (finding,) = nodecheck.others(tmp_path, PLACE)
    assert finding.level == "ok"
    assert "files of all 3 nodes" in finding.seen


def test_a_folder_that_is_not_shared(tmp_path: Path) -> None:
    (tmp_path / "hello-1").touch()
    (finding,) = nodecheck.others(tmp_path, PLACE, timeout=0.2)
    assert finding.level == "fail"
    assert f"nothing of node 0, 2 is to be seen in {tmp_path}" in finding.seen


def test_one_node_has_no_others(tmp_path: Path) -> None:
    assert not nodecheck.others(tmp_path, Place("local", "7"))


def test_an_image_whose_checks_hold() -> None:
    finding = nodecheck.judge_selfcheck(0, GOOD, "")
    assert (finding.level, finding.seen) == ("ok", "2 checks inside hold; not looked at: gpu")


def test_an_image_with_a_fault_or_without_a_word() -> None:
    bad = GOOD + "FAIL codec: the encodec package is missing\n"
    finding = nodecheck.judge_selfcheck(1, bad, "")
    assert finding.level == "fail"
    assert finding.seen == "inside the image: FAIL codec: the encodec package is missing"
    silent = nodecheck.judge_selfcheck(255, "", "FATAL: could not open image /x.sif\n")
    assert silent.level == "fail"
    assert "could not open image" in silent.seen
