"""The doctor's findings on machines with known faults."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from types import SimpleNamespace

import pytest

from giblet_hpc import findings
from giblet_hpc.config.cluster import Cluster
from giblet_hpc.errors import JobError
from giblet_hpc.jobs.doctor import examine as doctor
from giblet_hpc.jobs.doctor import hardware, storage
from giblet_hpc.jobs.node import fabric

A100 = "580.95.05, NVIDIA A100-SXM4-80GB, 81920, 0, No\n"
RDMA = fabric.Fabric("InfiniBand", (fabric.Port("mlx5_0", 1, "InfiniBand", True, 200),), "ib0")


@pytest.fixture
def nvidia(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for nvidia-smi, whose output is what a test wrote into a file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n[ -f {tmp_path}/said ] || exit 9\ncat {tmp_path}/said\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return tmp_path / "said"


def test_good_gpus(nvidia: Path) -> None:
    nvidia.write_text(A100 * 4)
    finding = hardware.gpu_driver(4)
    assert finding.level == "ok"
    assert "4 x NVIDIA A100-SXM4-80GB, 80 GiB, driver 580.95.05" in finding.seen


@pytest.mark.parametrize(
    ("said", "level", "words"),
    [
        (A100.replace("580.95", "535.10"), "fail", "needs 580.65 or newer"),
        (A100, "fail", "2 are asked for"),
        (A100 + A100.replace(" 0, No", " 3, No"), "warn", "memory faults on GPU 1"),
        (A100 + A100.replace("No", "Yes"), "warn", "memory faults on GPU 1"),
        (A100 + A100.replace(" 0, No", " [N/A], [N/A]"), "ok", "2 x"),
    ],
)
def test_bad_gpus(nvidia: Path, said: str, level: str, words: str) -> None:
    nvidia.write_text(said)
    finding = hardware.gpu_driver(2)
    assert finding.level == level
    assert words in finding.seen
    assert finding.fix or level == "ok"


def test_no_gpu(nvidia: Path) -> None:
    assert hardware.gpu_driver(0).level == "skipped"
    assert hardware.gpu_driver(1).level == "fail"


PEERS = """\
\x1b[4m \tGPU0\tGPU1\tGPU2\x1b[0m
 GPU0\tX\tOK\tCNS
 GPU1\tOK\tX\tOK
 GPU2\tCNS\tOK\tX

Legend:
  X    = Self
  CNS  = Chipset not supported
"""


def test_gpus_that_cannot_reach_each_other(nvidia: Path) -> None:
    nvidia.write_text(PEERS)
    finding = hardware.gpu_peers(3)
    assert finding.level == "warn"
    assert finding.seen.endswith("memory: 0-2 (CNS)")
    nvidia.write_text(PEERS.replace("CNS", "OK"))
    assert hardware.gpu_peers(3).level == "ok"
    assert hardware.gpu_peers(1).level == "skipped"
    nvidia.write_text("")
    silent = hardware.gpu_peers(2)
    assert (silent.level, silent.seen) == ("skipped", "nvidia-smi does not say how GPUs are linked")


LUSTRE = "/scratch/lab 1048576 0 {limit} - 120 0 {files} -\n"
LONG = """\
/scratch/a/name/of/more/than/fifteen/letters
               {used}       0 104857600       -     [120]       0       0       -
"""
NFS = """\
Disk quotas for user ann (uid 1000):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
server:/home  {blocks}  52428800 62914560       0     812       0       0       0
"""


@pytest.mark.parametrize(
    ("program", "said", "level", "words"),
    [
        ("lfs", LUSTRE.format(limit=104857600, files=1000000), "ok", "99 GiB and 999880 files"),
        ("lfs", LUSTRE.format(limit=104857600, files=5000), "warn", "4880 files"),
        ("lfs", LUSTRE.format(limit=0, files=0), "ok", "no limit"),
        ("lfs", LONG.format(used="104857600*"), "warn", "leaves 0 GiB"),
        ("lfs", LONG.format(used="[1048576]"), "ok", "99 GiB"),
        ("quota", NFS.format(blocks=1024), "ok", "50 GiB"),
        ("quota", NFS.format(blocks="52428801*"), "warn", "leaves 0 GiB"),
        ("quota", "", "skipped", "no quota that a command here knows of"),
    ],
)
def test_quotas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, said: str, level: str, words: str
) -> None:
    """A stand-in prints what the two commands print; it is all that is on the path."""
    (tmp_path / "said").write_text(said)
    command = tmp_path / program
    command.write_text(f"#!/bin/sh\nexec /bin/cat {tmp_path}/said\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = storage.quota(tmp_path)
    assert (finding.level, words in finding.seen) == (level, True), finding


def test_little_locked_memory_matters_on_rdma_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (65536, 65536))
    assert hardware.locked_memory(RDMA).level == "fail"
    assert hardware.locked_memory(fabric.Fabric("Ethernet")).level == "skipped"
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, 0))
    assert hardware.locked_memory(RDMA).level == "ok"


def test_dockers_shared_memory_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    small = SimpleNamespace(f_blocks=16384, f_bavail=16384, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _: small)
    finding = hardware.shared_memory(2)
    assert finding.level == "fail"
    assert "--ipc=host" in finding.fix


def test_a_folder_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    finding = storage.file_system(tmp_path)
    assert finding.level in ("ok", "warn")
    assert str(tmp_path) in finding.seen
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written() -> None:
    finding = storage.file_system(Path("/proc"))
    assert finding.level == "fail"


def test_a_clock_that_is_off(tmp_path: Path) -> None:
    finding = storage._judge_folder(tmp_path, seconds=0.1, skew=90.0)
    assert finding.level == "warn"
    assert "+90 s off" in finding.seen


def test_what_is_wrong_stops_a_submission(tmp_path: Path) -> None:
    profile = Cluster(name="c", scheduler="local", image=str(tmp_path / "none.sif"))
    found = doctor.examine(profile, [tmp_path / "not" / "yet"], nodes=1, gpus=0, on_node=True)
    assert findings.worst(found) == "fail"
    with pytest.raises(JobError, match=r"fail\s+image: there is no .*none.sif") as caught:
        findings.require_good(found)
    assert "--no-checks" in caught.value.hint
    assert "fix: container/build.sh makes it" in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "code", "status", "said"),
    [
        ("1", 0, "warn", "each file is on one of Lustre's servers"),
        ("8", 0, "ok", "spread over 8 servers"),
        ("-1", 0, "ok", "spread over all servers"),
        ("lfs: not a Lustre", 1, "skipped", "not on Lustre"),
    ],
)
def test_striping_of_large_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, status: str, said: str
) -> None:
    tool = tmp_path / "lfs"
    tool.write_text(f'#!/bin/sh\n[ "$*" = "getstripe -c -d {tmp_path}" ] || exit 9\n'
                    f'echo "{answer}"\nexit {code}\n')  # fmt: skip
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = storage.striping(tmp_path)
    assert (found.level, said in found.seen) == (status, True)


def test_without_lustre_there_is_nothing_to_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert storage.striping(tmp_path).level == "skipped"
