"""Signatures of GPUs and their drivers, the more particular first."""

from __future__ import annotations

from giblet_hpc.causes.base import Cause

REPLACE = "an admin has to drain the node and look at its GPU (dmesg, nvidia-smi -q)"
SMALLER = "halve train.batch_windows and double train.accumulation, or use more GPUs"

CAUSES = (
    Cause(
        name="gpu-lost",
        pattern=r"Xid[^\n]*\): 79\b|[Ff]allen off the bus|GPU is lost",
        reason="a GPU is no longer reachable on its bus",
        remedy=f"{REPLACE}; the node is left out of further attempts",
        attempts=3,
        of_node=True,
    ),
    Cause(
        name="gpu-memory-error",
        pattern=r"Xid[^\n]*\): (48|63|64|92|94|95)\b|[Uu]ncorrectable ECC error",
        reason="a GPU's memory has an uncorrectable error (ECC)",
        remedy=f"{REPLACE}; the node is left out of further attempts",
        attempts=3,
        of_node=True,
    ),
    Cause(
        name="gpu-firmware",
        pattern=r"Xid[^\n]*\): (61|62|119|120)\b|GSP[^\n]*[Tt]imeout",
        reason="a GPU's firmware no longer answers",
        remedy=f"{REPLACE}; often a reset of the GPU or a newer driver helps",
        attempts=3,
        of_node=True,
    ),
    Cause(
        name="nvlink",
        pattern=r"Xid[^\n]*\): (74|149)\b|NVLink[^\n]*([Ff]atal|[Ff]ail|uncorrectable)",
        reason="an NVLink connection between GPUs failed",
        remedy=f"{REPLACE}; `nvidia-smi nvlink -e` counts its errors",
        attempts=3,
        of_node=True,
    ),
    Cause(
        name="fabric-manager",
        pattern=r"CUDA_ERROR_SYSTEM_NOT_READY|system not yet initialized",
        reason="the node's GPU fabric is not started",
        remedy="an admin starts nvidia-fabricmanager, in the driver's version",
        attempts=3,
        of_node=True,
    ),
    Cause(
        name="driver-changed",
        pattern=r"Driver/library version mismatch",
        reason="the node's GPU driver was replaced while it ran",
        remedy="an admin reloads the driver or restarts the node",
        attempts=3,
        of_node=True,
    ),
    Cause(
        name="driver-too-old",
        pattern=r"CUDA driver version is insufficient|forward compatibility was attempted"
        r"|NVIDIA driver on your system is too old",
        reason="the GPU driver is older than this torch needs",
        remedy="an image with an older CUDA, or a newer driver: `giblet-hpc doctor` names both",
        attempts=1,
    ),
    Cause(
        name="gpu-too-old",
        pattern=r"no kernel image is available for execution",
        reason="this torch is not built for the GPU's architecture",
        remedy="choose a newer GPU (`gpu_type` in the cluster profile), or another build of torch",
        attempts=1,
    ),
    Cause(
        name="gpu-busy",
        pattern=r"CUDA-capable device\(s\) is/are busy or unavailable",
        reason="a GPU is held by another process, in exclusive mode",
        remedy="`nvidia-smi` on the node names the process; it may be left from an earlier job",
        attempts=3,
        of_node=True,
    ),
    Cause(
        name="gpu-invisible",
        pattern=r"No CUDA GPUs are available|no CUDA-capable device is detected"
        r"|CUDA_ERROR_NO_DEVICE|libcuda\.so\.1: cannot open shared object",
        reason="a rank sees no GPU",
        remedy="does the job ask for GPUs, and does the container get --nv? `giblet-hpc doctor "
        "--job` looks from inside a job",
    ),
    Cause(
        name="gpu-out-of-memory-in-nccl",
        pattern=r"ncclUnhandledCudaError[\s\S]*?out of memory|Cuda failure[^\n]*out of memory",
        reason="out of GPU memory inside NCCL",
        remedy=SMALLER,
    ),
    Cause(
        name="gpu-out-of-memory",
        pattern=r"CUDA out of memory|torch\.OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED"
        r"|CUDA error: out of memory",
        reason="out of GPU memory",
        remedy=SMALLER,
    ),
    Cause(
        name="index-outside-table",
        pattern=r"device-side assert triggered",
        reason="a GPU kernel was given an index outside its table",
        remedy="a code or a token is larger than the model's table: `giblet-hpc inspect data` "
        "shows the ranges; CUDA_LAUNCH_BLOCKING=1 names the layer",
    ),
    Cause(
        name="gpu-wrong-address",
        pattern=r"illegal memory access|misaligned address|Xid[^\n]*\): (13|31)\b",
        reason="a GPU kernel read or wrote outside its memory",
        remedy="a second attempt on another node tells a bad GPU from a fault in a kernel",
    ),
    Cause(
        name="gpu-kernel-failed",
        pattern=r"unspecified launch failure|CU(BLAS|DNN)_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR)",
        reason="a GPU kernel failed",
        remedy="a second attempt on another node tells a bad GPU from a fault in a kernel",
    ),
    Cause(
        name="xid",
        pattern=r"NVRM: Xid \([^)]*\): \d+",
        reason="the GPU's driver reported an error (Xid)",
        remedy="NVIDIA's table of Xid numbers tells what it means; an admin sees it in dmesg",
    ),
    Cause(
        name="cuda-error",
        pattern=r"CUDA error: unknown error|CUDA kernel errors might be asynchronously reported",
        reason="a GPU operation failed, without a cause in the logs",
        remedy="the node's dmesg has more; a second attempt elsewhere tells",
        role="confirmation",
    ),
)
