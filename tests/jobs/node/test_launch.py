from __future__ import annotations

from giblet_hpc.jobs.node import launch
from giblet_hpc.jobs.node.launch import Geometry


def test_several_nodes_are_told_who_hosts_the_rendezvous() -> None:
    head = Geometry(4, nodes=2, node=0, head="n1", port=12345, rdzv_id="slurm-7.0", host="n1")
    other = Geometry(4, nodes=2, node=1, head="n1", port=12345, rdzv_id="slurm-7.0", host="n2")
    for geometry, is_host in ((head, "true"), (other, "false")):
        options = launch.torchrun_options(geometry)
        assert f"--rdzv-conf=is_host={is_host},join_timeout=900" in options
        assert {"--nnodes=2", "--nproc-per-node=4", "--rdzv-endpoint=n1:12345"} <= set(options)
        assert {"--rdzv-id=slurm-7.0", f"--local-addr={geometry.host}"} <= set(options)
