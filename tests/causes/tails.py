"""Ends of logs, one for each known cause: made up after what programs are known to print."""

from __future__ import annotations

TAILS = {
    "gpu-lost": "NVRM: Xid (PCI:0000:c1:00): 79, pid='<unknown>', GPU has fallen off the bus.",
    "gpu-memory-error": "RuntimeError: CUDA error: uncorrectable ECC error encountered",
    "gpu-firmware": "NVRM: Xid (PCI:0000:41:00): 119, pid=911, Timeout waiting for RPC from GSP0!",
    "nvlink": "NVRM: Xid (PCI:0000:4e:00): 74, pid=4411, NVLink: fatal error detected on link 3",
    "fabric-manager": "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 802: "
    "system not yet initialized",
    "driver-changed": "Failed to initialize NVML: Driver/library version mismatch",
    "driver-too-old": "RuntimeError: The NVIDIA driver on your system is too old (found 11040)",
    "gpu-too-old": "RuntimeError: CUDA error: no kernel image is available for execution on the "
    "device",
    "gpu-busy": "RuntimeError: CUDA error: CUDA-capable device(s) is/are busy or unavailable",
    "gpu-invisible": "RuntimeError: No CUDA GPUs are available",
    "gpu-out-of-memory-in-nccl": "torch.distributed.DistBackendError: NCCL error, "
    "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 2 'out of "
    "memory'",
    "gpu-out-of-memory": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
    "index-outside-table": "RuntimeError: CUDA error: device-side assert triggered",
    "gpu-wrong-address": "RuntimeError: CUDA error: an illegal memory access was encountered",
    "gpu-kernel-failed": "RuntimeError: cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "xid": "NVRM: Xid (PCI:0000:81:00): 45, pid=771, name=python, Ch 00000008",
    "nccl-shared-memory-handle": r"Error while attaching to shared memory segment "
    r"/dev/shm/nccl-\xc0\x8a\x07 (size 9637888)",
    "shared-memory-full": "RuntimeError: unable to allocate shared memory(shm) for file "
    "</torch_41_2>: No space left on device (28)",
    "gpu-shared-by-ranks": "ncclInvalidUsage: Duplicate GPU detected : rank 1 and rank 0 both on "
    "CUDA device c1000",
    "network-interface-missing": "Bootstrap : no socket interface found",
    "locked-memory": "NET/IB : ibv_reg_mr_iova2 failed with error Cannot allocate memory",
    "network-plugin-missing": "NCCL WARN Failed to initialize any NET plugin",
    "infiniband-link": "NCCL WARN NET/IB: Got completion from peer 10.1.0.4 with status=12 "
    "IBV_WC_RETRY_EXC_ERR vendor err 129",
    "nccl-versions": "ncclInvalidUsage: mismatched NCCL version detected between ranks",
    "collectives-differ": "RuntimeError: Detected mismatch between collectives on ranks. Rank 0 is "
    "running ALLREDUCE, but Rank 1 is running BROADCAST",
    "port-in-use": "[W socket.cpp] The server socket has failed to bind to [::]:29500 (errno: 98 - "
    "Address already in use).",
    "host-name-unknown": "socket.gaierror: [Errno -3] Temporary failure in name resolution",
    "network-unreachable": "OSError: [Errno 113] No route to host",
    "rendezvous": "torch.distributed.elastic.rendezvous.api.RendezvousTimeoutError",
    "memory-limit-of-job": "slurmstepd: error: Detected 1 oom_kill event in StepId=77.0. Some of "
    "the step tasks have been OOM Killed.",
    "memory-of-node": "numpy._core._exceptions._ArrayMemoryError: MemoryError: Unable to allocate "
    "11.2 GiB",
    "quota": "OSError: [Errno 122] Disk quota exceeded: '/home/a/runs/x/state.json'",
    "disk-full": "OSError: [Errno 28] No space left on device: '/scratch/a/store/c/0/0'",
    "stale-file-handle": "OSError: [Errno 116] Stale file handle: '/work/a/runs/x/run.yaml'",
    "file-system-evicted": "OSError: [Errno 108] Cannot send after transport endpoint shutdown",
    "read-only-file-system": "OSError: [Errno 30] Read-only file system: '/opt/giblet/x'",
    "input-output-error": "OSError: [Errno 5] Input/output error: '/scratch/a/store/c/0/1'",
    "too-many-open-files": "OSError: [Errno 24] Too many open files",
    "too-many-processes": "RuntimeError: can't start new thread",
    "folder-not-bound": "FATAL: container creation failed: mount source /scratch/x doesn't exist",
    "image-missing": "FATAL: could not open image /work/lab/giblet.sif: failed to retrieve path",
    "image-damaged": "FATAL: while opening image: image format not recognized",
    "user-namespaces": "ERROR  : Failed to create user namespace: user namespace disabled",
    "container-program-missing": "/bin/sh: 3: apptainer: not found",
    "c-library-too-old": "/lib64/libc.so.6: version `GLIBC_2.34' not found (required by python)",
    "illegal-instruction": "node-0: line 4:  2211 Illegal instruction     python -m x",
    "walltime": "slurmstepd: error: *** STEP 77.0 ON n1 CANCELLED AT 2026-03-01T10:00:00 DUE TO "
    "TIME LIMIT ***",
    "preempted": "slurmstepd: error: *** JOB 77 ON n1 CANCELLED AT 2026-03-01T10:00:00 DUE TO "
    "PREEMPTION ***",
    "node-failed": "slurmstepd: error: *** JOB 77 ON n1 CANCELLED AT 2026-03-01T10:00:00 DUE TO "
    "NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***",
    "prolog": "srun: error: Task launch for StepId=77.0 failed on node n2: Prolog failed",
    "credential": "srun: error: Task launch for StepId=77.0 failed on node n2: Invalid job "
    "credential",
    "working-folder": "slurmstepd: error: couldn't chdir to `/home/a/work': No such file or "
    "directory: going to /tmp instead",
    "network-diverged": "JobError: steps 40 to 44 had gradients that are not finite",
    "store-damaged": "StoreError: /s/bold/c/0/0: row 31 is damaged",
    "digest-differs": "DataError: sha256 of /s/film.mp4 does not match the recorded one",
    "file-cut-short": "RuntimeError: PytorchStreamReader failed reading zip archive: failed "
    "finding central directory",
    "film-damaged": "av.error.InvalidDataError: Invalid data found when processing input: 'f.mp4'",
    "shapes-differ": "RuntimeError: Error(s) in loading state_dict for Network: size mismatch for "
    "encoder.weight",
    "model-not-downloaded": "OSError: We couldn't connect to 'https://huggingface.co' to load the "
    "files",
    "package-missing": "ModuleNotFoundError: No module named 'encodec'",
    "permission": "PermissionError: [Errno 13] Permission denied: '/work/lab/store/zarr.json'",
    "config": "giblet_hpc.errors.ConfigError: study.root: there is no such folder",
    "segmentation-fault": "Fatal Python error: Segmentation fault",
}
CASCADES = (
    "[rank3]: ncclRemoteError: A call failed possibly due to a network error or a remote process "
    "exiting prematurely.\n[rank3]: remote process exited or there was a network error",
    "[rank2]:[E ProcessGroupNCCL.cpp] [Rank 2] Watchdog caught collective operation timeout: "
    "WorkNCCL(SeqNum=812, OpType=ALLREDUCE) ran for 600012 milliseconds before timing out.",
    "RuntimeError: [/pytorch/third_party/gloo] Connection closed by peer [10.1.0.3]:41124",
    "RuntimeError: Timed out waiting 1800000ms for recv operation to complete",
    "torch.distributed.DistStoreError: wait timeout after 300000ms, keys: /default_pg/0",
    "W1101 torch/distributed/elastic/agent: Sending process 4411 closing signal SIGTERM\n"
    "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:",
    "terminate called after throwing an instance of 'c10::DistBackendError'",
    "srun: error: n2: task 1: Exited with exit code 1\nsrun: Job step aborted: Waiting up to 32 "
    "seconds for job step to finish.",
)
CONFIRMATIONS = {
    "cuda-error": "RuntimeError: CUDA error: unknown error\nCUDA kernel errors might be "
    "asynchronously reported at some other API call",
    "nccl-system-error": "NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)"
    "\nncclSystemError: System call (e.g. socket, malloc) or external library call failed",
    "killed": "traceback : Signal 9 (SIGKILL) received by PID 4411",
}
