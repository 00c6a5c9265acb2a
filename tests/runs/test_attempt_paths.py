from __future__ import annotations

from pathlib import Path

from giblet_hpc.runs.attempt_paths import AttemptPaths


def test_every_writer_has_a_file_of_its_own() -> None:
    files = AttemptPaths(Path("/r/attempts/1"))
    nodes, ranks = range(3), range(6)
    names = [files.job, files.progress, files.stop, files.hung, files.rendezvous]
    names += [kind(n) for kind in (files.node, files.log, files.agent) for n in nodes]
    names += [files.rank(n) for n in ranks]
    assert len(set(names)) == len(names)
    assert {name.parent for name in names} == {files.root}
