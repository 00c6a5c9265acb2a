from __future__ import annotations

from giblet_hpc.jobs.inspect import tensorboard
from giblet_hpc.runs.paths import RunPaths


def test_tensorboard_listens_on_loopback_only(paths: RunPaths) -> None:
    port = tensorboard.free_port()
    assert "--host=127.0.0.1" in tensorboard.command([paths], port)
    assert "--load_fast=false" in tensorboard.command([paths], port), "that one has no prefix"
    assert f"-L {port}:127.0.0.1:{port}" in tensorboard.tunnel(port)


def test_the_curves_have_a_path_of_their_own() -> None:
    first, second = tensorboard.new_prefix(), tensorboard.new_prefix()
    assert first != second
    assert len(first) == 23 and first.startswith("/")
