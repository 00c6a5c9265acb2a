from __future__ import annotations

from giblet_hpc.jobs.inspect import tensorboard
from giblet_hpc.runs.paths import RunPaths


def test_tensorboard_listens_on_loopback_only(paths: RunPaths) -> None:
    port = tensorboard.free_port()
    assert "--host=127.0.0.1" in tensorboard.command([paths], port)
    assert f"-L {port}:127.0.0.1:{port}" in tensorboard.tunnel(port)
