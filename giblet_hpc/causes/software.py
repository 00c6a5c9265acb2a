"""Signatures of the scheduler, of files and of code, the more particular first."""

from __future__ import annotations

from giblet_hpc.causes.base import Cause

CAUSES = (
    Cause(
        name="walltime",
        pattern=r"CANCELLED AT [^\n]*DUE TO TIME LIMIT",
        reason="the job's time was up before it had saved",
        remedy="raise lead_seconds in the cluster profile, so that it is asked to stop earlier",
    ),
    Cause(
        name="preempted",
        pattern=r"CANCELLED AT [^\n]*DUE TO PREEMPTION",
        reason="a job of higher priority took the nodes",
        remedy="it goes on by itself from the last checkpoint",
    ),
    Cause(
        name="node-failed",
        pattern=r"DUE TO NODE FAILURE|NODE_FAIL|Node failure on",
        reason="a node failed",
        remedy="it goes on by itself on other nodes",
        attempts=3,
    ),
    Cause(
        name="prolog",
        pattern=r"[Pp]rolog (script )?(failed|error|hook)|launch failed requeued held",
        reason="a node's prolog failed before the job began",
        remedy="an admin's matter; the node is drained, as a rule",
        attempts=3,
        of_node=True,
    ),
    Cause(
        name="credential",
        pattern=r"[Ii]nvalid job credential|[Cc]redential (expired|replayed|rewound)"
        r"|[Mm]unge (decode|encode) failed",
        reason="a node refused the scheduler's credential",
        remedy="the clocks of the nodes differ, or munge is down on one: an admin's matter",
        attempts=3,
        of_node=True,
    ),
    Cause(
        name="working-folder",
        pattern=r"couldn't chdir to|error: chdir\(",
        reason="the job's folder is not there on a node",
        remedy="submit from a folder that all nodes share",
    ),
    Cause(
        name="network-diverged",
        pattern=r"gradients that are not finite(?!: back to step)|loss is (nan|inf)\b",
        reason="training diverged: gradients are not finite",
        remedy="a lower train.lr or train.clip_norm; `giblet-hpc inspect data` looks for NaN and "
        "for scales that differ",
        attempts=1,
    ),
    Cause(
        name="store-damaged",
        pattern=r"content is damaged|its index is damaged|row \d+ is damaged|crc32c[^\n]*mismatch",
        reason="the feature store is damaged",
        remedy="`giblet-hpc run preprocess NAME` writes what is missing or damaged",
        attempts=1,
    ),
    Cause(
        name="digest-differs",
        pattern=r"(digest|checksum|sha256)[^\n]*(differ|mismatch|does not match)",
        reason="a file is not the one that was recorded (its digest differs)",
        remedy="restore the file, or preprocess again under a new name",
        attempts=1,
    ),
    Cause(
        name="file-cut-short",
        pattern=r"PytorchStreamReader failed|invalid header or archive is corrupted"
        r"|CRC check failed|unexpected end of (file|data)|EOFError",
        reason="a file is damaged or cut short",
        remedy="the line above names it: restore it, or have it made again",
    ),
    Cause(
        name="film-damaged",
        pattern=r"Invalid data found when processing input|moov atom not found",
        reason="a film cannot be decoded",
        remedy="copy it again: `ffprobe FILE` has to succeed",
        attempts=1,
    ),
    Cause(
        name="shapes-differ",
        pattern=r"Error\(s\) in loading state_dict|size mismatch for",
        reason="a checkpoint is of a network with other sizes",
        remedy="the same model section as when it was trained; `giblet-hpc config show RUN` prints "
        "it",
        attempts=1,
    ),
    Cause(
        name="model-not-downloaded",
        pattern=r"LocalEntryNotFoundError|OfflineModeIsEnabled|couldn't connect to 'https?://hugg"
        r"|outgoing traffic has been disabled",
        reason="a pretrained model is not on this machine, and nodes have no network",
        remedy="fetch it where there is one, and name its folder in the config",
        attempts=1,
    ),
    Cause(
        name="package-missing",
        pattern=r"ModuleNotFoundError|ImportError|undefined symbol",
        reason="a Python package is missing or does not fit",
        remedy="use the image, or `make venv`; PYTHONPATH and ~/.local may bring another version",
        attempts=1,
    ),
    Cause(
        name="permission",
        pattern=r"PermissionError|[Pp]ermission denied|EACCES",
        reason="a file may not be read or written",
        remedy="`ls -ld` of the file and of the folders above it; docs/how-to/shared-lab.md",
        attempts=1,
    ),
    Cause(
        name="config",
        pattern=r"ConfigError: |validation errors? for ",
        reason="the run's config is not valid",
        remedy="giblet-hpc config check FILE",
        attempts=1,
    ),
    Cause(
        name="segmentation-fault",
        pattern=r"Segmentation fault|SIGSEGV|core dumped",
        reason="a process crashed in compiled code",
        remedy="a second attempt tells whether it is the node; the stacks are in the log",
    ),
    Cause(
        name="killed",
        pattern=r"\(SIGKILL\)|[Ss]ignal 9\b|exit ?code:? +-9\b|\bKilled\b",
        reason="a process was killed",
        remedy="the kernel does so where memory is short: raise memory_gb_per_node in the cluster "
        "profile",
        role="confirmation",
    ),
    Cause(
        name="step-ended",
        pattern=r"srun: error: [^\n]*(Exited|Terminated|aborted)|STEP [\d.]+ ON \S+ CANCELLED"
        r"|srun: Job step aborted",
        reason="the job's step was ended",
        remedy="look for what ended first in the nodes' logs",
        role="cascade",
    ),
)
