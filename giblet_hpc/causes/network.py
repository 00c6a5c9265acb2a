"""Signatures of NCCL, gloo and the network, the more particular first."""

from __future__ import annotations

from giblet_hpc.causes.base import Cause

FIRST = "look for the rank that ended first in the other nodes' logs"

CAUSES = (
    Cause(
        name="nccl-shared-memory-handle",
        pattern=r"/shm/nccl-[^\n]*?\\x[0-9a-f]{2}",
        reason="ranks of one node disagree about how to share host memory: one got a memory "
        "handle where it expected the name of a file in /dev/shm",
        remedy="set NCCL_CUMEM_HOST_ENABLE=0 for every rank (`environment:` in the cluster "
        "profile); the cause is often a NUMA node without memory or cores, which an admin can mend",
    ),
    Cause(
        name="shared-memory-full",
        pattern=r"/shm/\S+.*No space left|No space left on device.*/shm|nccl.*shm.*No space left"
        r"|unable to (open|allocate) shared memory|insufficient shared memory \(shm\)"
        r"|killed by signal: Bus error",
        reason="the node's shared memory (/dev/shm) is full",
        remedy="give it more room: docker and podman want --ipc=host; on a node, remove what lies "
        "there",
    ),
    Cause(
        name="gpu-shared-by-ranks",
        pattern=r"Duplicate GPU detected",
        reason="two ranks use the same GPU",
        remedy="ask for as many GPUs as ranks; unset CUDA_VISIBLE_DEVICES where a job script sets "
        "it",
        attempts=1,
    ),
    Cause(
        name="network-interface-missing",
        pattern=r"[Nn]o socket interface found|No interface found"
        r"|Unable to find (address|interface) for",
        reason="no network interface of the names that NCCL or gloo was told",
        remedy="NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME name interfaces that this node lacks: "
        "unset them, or correct them",
    ),
    Cause(
        name="locked-memory",
        pattern=r"ibv_reg_mr\w* failed|ibv_create_\w+ failed.*Cannot allocate|memlock",
        reason="InfiniBand may not lock memory",
        remedy="`ulimit -l` has to say unlimited in jobs: an admin sets "
        "PropagateResourceLimitsExcept",
    ),
    Cause(
        name="network-plugin-missing",
        pattern=r"[Ff]ailed to (initialize any NET plugin|find network)"
        r"|NET/Plugin.*[Nn]o plugin found(?!.*using internal)|network .*AWS Libfabric.* not found",
        reason="the network plugin that NCCL_NET names is not in the image",
        remedy="bind it (`binds:` in the cluster profile), or unset NCCL_NET for slow sockets",
    ),
    Cause(
        name="infiniband-link",
        pattern=r"IBV_WC_RETRY_EXC_ERR|IBV_WC_RNR_RETRY|Got completion [^\n]*(error|status=)\s*12\b"
        r"|ibv_poll_cq[^\n]*fail|port [^\n]*(went|is) down|vendor err 129",
        reason="an InfiniBand link failed",
        remedy="`ibstat` and the switch's counters show which; the node is left out of further "
        "attempts",
        attempts=3,
        of_node=True,
    ),
    Cause(
        name="nccl-versions",
        pattern=r"NCCL versions? (differ|mismatch)|mismatch(ed)? NCCL version",
        reason="the ranks use different versions of NCCL",
        remedy="one image on all nodes: `giblet-hpc image check`; a module or LD_LIBRARY_PATH may "
        "bring another",
        attempts=1,
    ),
    Cause(
        name="collectives-differ",
        pattern=r"Detected mismatch between collectives on ranks",
        reason="the ranks called different collective operations",
        remedy="they have left the same path: the attempt's collectives-rank-*.json say where",
    ),
    Cause(
        name="port-in-use",
        pattern=r"EADDRINUSE|(?i:address already in use)",
        reason="a network port is taken by another process",
        remedy="the next attempt takes another; MASTER_PORT must not be set in a job's environment",
    ),
    Cause(
        name="host-name-unknown",
        pattern=r"Temporary failure in name resolution|Name or service not known"
        r"|getaddrinfo[^\n]*fail",
        reason="a node's name is not known on another",
        remedy="`getent hosts NODE` on the node has to answer: an admin's matter",
    ),
    Cause(
        name="network-unreachable",
        pattern=r"No route to host|Network is unreachable",
        reason="a node cannot reach another over the network",
        remedy="a firewall between nodes, or an interface without a route: NCCL_SOCKET_IFNAME "
        "chooses one",
    ),
    Cause(
        name="rendezvous",
        pattern=r"the nodes did not find each other|Rendezvous(Timeout|Connection|Closed)Error"
        r"|client socket has (timed out|failed to connect)",
        reason="the nodes did not find each other",
        remedy="can the nodes reach each other by name? `giblet-hpc doctor` tries it",
    ),
    Cause(
        name="nccl-system-error",
        pattern=r"ncclSystemError|ncclInternalError|unhandled system error",
        reason="NCCL failed, without a cause in the logs",
        remedy="NCCL_DEBUG=INFO makes it say more; a second attempt elsewhere tells",
        role="confirmation",
    ),
    Cause(
        name="nccl-remote",
        pattern=r"ncclRemoteError|remote process exited|[Cc]onnection closed by remote peer",
        reason="another rank ended first",
        remedy=FIRST,
        role="cascade",
    ),
    Cause(
        name="nccl-watchdog",
        pattern=r"Watchdog caught collective operation timeout|last enqueued NCCL work"
        r"|[Cc]ollective[^\n]*timed out|heartbeat monitor[^\n]*timed out",
        reason="a collective operation of NCCL failed or timed out",
        remedy="often a lost rank or a bad link; a second attempt elsewhere tells",
        role="cascade",
    ),
    Cause(
        name="gloo-connection",
        pattern=r"Timed out waiting \d+ms for (recv|send) operation|Connection closed by peer"
        r"|Connection reset by peer|Broken pipe|gloo.*(timed out|Timeout)",
        reason="a rank lost its connection to another (gloo)",
        remedy=FIRST,
        role="cascade",
    ),
    Cause(
        name="store-timeout",
        pattern=r"DistStoreError|wait timeout after \d+ms, keys"
        r"|TCPStore[^\n]*(timed out|recvValue)",
        reason="a rank waited in vain for another's key",
        remedy=FIRST,
        role="cascade",
    ),
    Cause(
        name="teardown",
        pattern=r"Sending process \d+ closing signal SIGTERM|ChildFailedError"
        r"|(?i:process group) has been (destroyed|aborted)|terminate called after throwing"
        r"|taking the entire process down|communicator was aborted|DistBackendError",
        reason="a rank was ended because another had ended",
        remedy=FIRST,
        role="cascade",
    ),
)
