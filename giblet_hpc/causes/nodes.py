"""Signatures of a node's memory and file systems, and of the container, particular ones first."""

from __future__ import annotations

from giblet_hpc.causes.base import Cause

MORE_MEMORY = "raise memory_gb_per_node in the cluster profile, or use fewer ranks a node"

CAUSES = (
    Cause(
        name="memory-limit-of-job",
        pattern=r"oom[-_]kill|Out Of Memory|[Mm]emory cgroup out of memory|exceeded memory limit",
        reason="out of memory on the node: the job's limit was reached, and the kernel killed a "
        "process",
        remedy=MORE_MEMORY,
    ),
    Cause(
        name="memory-of-node",
        pattern=r"MemoryError|Cannot allocate memory|DefaultCPUAllocator: (not enough|can't alloc)"
        r"|std::bad_alloc",
        reason="out of memory on the node",
        remedy=MORE_MEMORY,
    ),
    Cause(
        name="quota",
        pattern=r"Disk quota exceeded|EDQUOT",
        reason="the disk quota is used up",
        remedy="free space or ask for more; old runs: `giblet-hpc runs`, `giblet-hpc remove`",
        attempts=1,
    ),
    Cause(
        name="disk-full",
        pattern=r"No space left on device|ENOSPC",
        reason="a file system is full",
        remedy="free space, or point study.store and --runs elsewhere; `giblet-hpc doctor` shows "
        "what is left",
        attempts=1,
    ),
    Cause(
        name="stale-file-handle",
        pattern=r"Stale (NFS )?file handle|ESTALE",
        reason="a network file system lost a file (stale file handle)",
        remedy="a file or a folder was replaced under the job, or the server restarted; a second "
        "attempt tells",
    ),
    Cause(
        name="file-system-evicted",
        pattern=r"Cannot send after transport endpoint shutdown"
        r"|Transport endpoint is not connected|ESHUTDOWN|ENOTCONN",
        reason="the node lost its connection to a file system",
        remedy="the node is left out of further attempts; an admin remounts the file system",
        attempts=3,
        of_node=True,
    ),
    Cause(
        name="read-only-file-system",
        pattern=r"Read-only file system|EROFS",
        reason="a file system is mounted read-only",
        remedy="inside a container only what `binds` names can be written; else an admin's matter",
    ),
    Cause(
        name="input-output-error",
        pattern=r"Input/output error|Remote I/O error|\bEIO\b",
        reason="a file system returned an error for a read or a write",
        remedy="a bad disk or server: an admin sees it in dmesg; a second attempt elsewhere tells",
        attempts=3,
        of_node=True,
    ),
    Cause(
        name="too-many-open-files",
        pattern=r"Too many open files|EMFILE|ENFILE",
        reason="too many open files",
        remedy="`ulimit -n 65536` in `setup` of the cluster profile",
        attempts=1,
    ),
    Cause(
        name="too-many-processes",
        pattern=r"can't start new thread|pthread_create failed|Resource temporarily unavailable",
        reason="no more processes or threads may be started",
        remedy="`ulimit -u` in jobs, or fewer CPU threads a rank",
    ),
    Cause(
        name="folder-not-bound",
        pattern=r"mount source .* doesn't exist|failed to mount|no such file or directory.*bind"
        r"|could not (bind|mount) [^\n]*: ",
        reason="a folder could not be bound into the container",
        remedy="correct the paths under `binds` in the cluster profile",
    ),
    Cause(
        name="image-missing",
        pattern=r"could not open image|\.sif[^\n]*: no such file|unable to open [^\n]*\.sif",
        reason="the container image is not there",
        remedy="`giblet-hpc image check` names what the profile expects; the path has to be on a "
        "file system that all nodes share",
    ),
    Cause(
        name="image-damaged",
        pattern=r"image format not recogni[sz]ed|not a valid (SIF|squashfs)"
        r"|squashfs[^\n]*(corrupt|[Ee]rror)",
        reason="the container image is damaged",
        remedy="copy it again: `giblet-hpc image check` compares it with what was built",
    ),
    Cause(
        name="user-namespaces",
        pattern=r"[Ff]ailed to create user namespace|user namespaces? (are )?(disabled|not enabled)"
        r"|newuidmap|no subuid|unprivileged_userns",
        reason="the node does not let users start containers (user namespaces)",
        remedy="an admin installs apptainer-suid or sets user.max_user_namespaces",
        of_node=True,
    ),
    Cause(
        name="container-program-missing",
        pattern=r"(apptainer|singularity|podman|docker)[^\n]*(command )?not found",
        reason="the container program is not on the node",
        remedy="add what loads it to `setup` in the cluster profile, such as `module load "
        "apptainer`",
    ),
    Cause(
        name="c-library-too-old",
        pattern=r"GLIBC(XX)?_[\d.]+' not found",
        reason="the node's C library is older than a program needs",
        remedy="run from the image: `image:` in the cluster profile",
        attempts=1,
    ),
    Cause(
        name="illegal-instruction",
        pattern=r"Illegal instruction|SIGILL",
        reason="the node's CPU lacks instructions that a program was built for",
        remedy="leave such nodes out: `constraint` in the cluster profile",
        attempts=3,
        of_node=True,
    ),
)
