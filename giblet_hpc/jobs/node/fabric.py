"""What connects GPUs and nodes, and the few variables NCCL and gloo need to use it.

Read from sysfs and nvidia-smi, as cluster nodes have no ibstat. Each variable has its reason;
where NCCL chooses well by itself, nothing is set.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Network = Literal["Slingshot", "EFA", "InfiniBand", "RoCE", "Ethernet", "none"]
NOT_NETWORKS = "^lo,docker,virbr,veth"
ASK_SECONDS = 20.0
GIB = 2**30
SHARED_MEMORY_GIB = 1.0
"""What NCCL's ranks of one node need of /dev/shm."""
DEBUGGING = re.compile(
    r"^(NCCL_(DEBUG|DEBUG_\w+|ALGO|PROTO|P2P_DISABLE|P2P_LEVEL|SHM_DISABLE|IB_DISABLE|NVLS_ENABLE"
    r"|MIN_NCHANNELS|MAX_NCHANNELS|MIN_CTAS|MAX_CTAS|NTHREADS|BUFFSIZE|CHECKS_DISABLE)"
    r"|TORCH_(NCCL_BLOCKING_WAIT|DISTRIBUTED_DEBUG|CPP_LOG_LEVEL))$"
)
"""Variables that NVIDIA's documentation keeps for debugging: not for scripts that stay."""
UNKNOWN = frozenset({"NCCL_TIMEOUT"})
"""Variables that people set and NCCL does not know."""


@dataclass(frozen=True)
class Port:
    """A port of an RDMA device.

    Parameters
    ----------
    device : str
        Such as ``mlx5_0``.
    number : int
    network : str
        InfiniBand, RoCE or EFA.
    active : bool
    gigabits : float
        Rate in Gbit/s; 0 when unknown.
    """

    device: str
    number: int
    network: Network
    active: bool
    gigabits: float


@dataclass(frozen=True)
class Fabric:
    """What a node is connected by.

    Parameters
    ----------
    network : str
        The best network between nodes that is up.
    ports : tuple of Port
        RDMA ports, up or not.
    interface : str
        Network interface of the default route; empty when there is none.
    high_speed : tuple of str
        Slingshot's interfaces.
    gpu_links : str
        ``NVLink``, ``PCIe`` or empty when there are not two GPUs.
    odd_numa : tuple of str
        NUMA nodes without memory or without cores, in words.
    """

    network: Network
    ports: tuple[Port, ...] = ()
    interface: str = ""
    high_speed: tuple[str, ...] = ()
    gpu_links: str = ""
    odd_numa: tuple[str, ...] = ()

    @property
    def gigabits(self) -> float:
        """Rate of the network's active ports together, in Gbit/s; 0 when unknown."""
        return sum(p.gigabits for p in self.ports if p.active and p.network == self.network)


@dataclass(frozen=True)
class Setting:
    """A variable, its value, and why it is set."""

    name: str
    value: str
    reason: str


def detect(root: Path = Path("/"), topology: str | None = None) -> Fabric:
    """Return what this node is connected by.

    Parameters
    ----------
    root : Path
        Where sys/ and proc/ are.
    topology : str, optional
        What ``nvidia-smi topo -m`` prints; by default it is asked.
    """
    ports = tuple(_ports(root / "sys/class/infiniband"))
    high_speed = tuple(sorted(p.name for p in (root / "sys/class/net").glob("hsn*")))
    interface = _default_interface(root / "proc/net/route")
    return Fabric(
        network=_network(ports, cxi=any((root / "sys/class/cxi").glob("*")) or bool(high_speed),
                         interface=interface),
        ports=ports,
        interface=interface,
        high_speed=high_speed,
        gpu_links=_gpu_links(_ask_smi("topo", "-m") if topology is None else topology),
        odd_numa=tuple(_odd_numa(root / "sys/devices/system/node")),
    )  # fmt: skip


def _network(ports: tuple[Port, ...], *, cxi: bool, interface: str) -> Network:
    if cxi:
        return "Slingshot"
    active = [port for port in ports if port.active]
    if active:
        best = max(active, key=lambda port: (port.network != "RoCE", port.gigabits))
        return best.network
    return "Ethernet" if interface else "none"


def _ports(folder: Path) -> list[Port]:
    found = []
    for port in sorted(folder.glob("*/ports/*")):
        device = port.parent.parent.name
        layer = _read(port / "link_layer")
        state, rate = _read(port / "state"), _read(port / "rate")
        network: Network = "InfiniBand"
        if "efa" in device or _driver(port.parent.parent) == "efa":
            network = "EFA"
        elif layer == "Ethernet":
            network = "RoCE"
        speed = re.match(r"([\d.]+) Gb", rate)
        found.append(
            Port(device, int(port.name), network, "ACTIVE" in state,
                 float(speed[1]) if speed else 0.0)
        )  # fmt: skip
    return found


def _driver(device: Path) -> str:
    try:
        return (device / "device" / "driver").resolve(strict=True).name
    except OSError:
        return ""


def _default_interface(table: Path) -> str:
    """Return the interface of the default route with the smallest metric."""
    routes = []
    for line in _read(table).splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[1] == "00000000" and fields[7] == "00000000":
            routes.append((int(fields[6]), fields[0]))
    return min(routes)[1] if routes else ""


def _ask_smi(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["nvidia-smi", *arguments],  # noqa: S607 - the driver's, wherever it is
            capture_output=True, text=True, timeout=ASK_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _gpu_links(topology: str) -> str:
    """Return how GPUs are linked; empty when there are not two."""
    rows = _matrix(topology)
    if len(rows) < 2:
        return ""
    between = [cell for cells in rows for cell in cells if cell != "X"]
    return "NVLink" if all(re.match(r"NV\d+", cell) for cell in between) else "PCIe"


def blocked_peers(matrix: str | None = None) -> list[str] | None:
    """Return the pairs of GPUs that cannot read each other's memory, such as ``0-1 (CNS)``.

    None where nvidia-smi says nothing of two GPUs.

    Parameters
    ----------
    matrix : str, optional
        What ``nvidia-smi topo -p2p r`` prints; by default it is asked. ``OK`` stands for a pair
        that can, letters for why not.
    """
    text = _ask_smi("topo", "-p2p", "r") if matrix is None else matrix
    rows = _matrix(text)
    if len(rows) < 2:
        return None
    found = []
    for row, cells in enumerate(rows):
        for column, cell in enumerate(cells):
            if column > row and cell not in ("OK", "X"):
                found.append(f"{row}-{column} ({cell})")
    return found


def _matrix(text: str) -> list[list[str]]:
    """Return the cells of nvidia-smi's matrix of GPUs, whose rows begin with GPUn."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    rows = [line.split() for line in text.splitlines() if re.match(r"\s*GPU\d+\s+(?!GPU)", line)]
    return [row[1 : 1 + len(rows)] for row in rows]


def _odd_numa(folder: Path) -> list[str]:
    found = []
    for node in sorted(folder.glob("node[0-9]*"), key=lambda path: int(path.name[4:])):
        total = re.search(r"MemTotal:\s+(\d+)", _read(node / "meminfo"))
        if total and int(total[1]) == 0:
            found.append(f"{node.name} has no memory")
        elif (node / "cpulist").is_file() and not _read(node / "cpulist"):
            found.append(f"{node.name} has no cores")
    return found


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def choose(fabric: Fabric, *, nodes: int, gpus: int) -> list[Setting]:
    """Return what a run on this fabric needs to have set.

    Parameters
    ----------
    fabric : Fabric
    nodes : int
    gpus : int
        GPUs used on each node; without any, only gloo is looked after.

    Returns
    -------
    list of Setting
        Values of NVIDIA's system configuration class; none for debugging.
    """
    settings = []
    if gpus and fabric.odd_numa:
        settings.append(
            Setting(
                "NCCL_CUMEM_HOST_ENABLE", "0",
                f"{'; '.join(fabric.odd_numa)}: ranks may disagree about how to share host memory, "
                "and fail with bytes that are no text",
            )
        )  # fmt: skip
    if nodes == 1:
        why = "ranks of one node need no network, and nobody else has to reach them"
        names = ["GLOO_SOCKET_IFNAME", *(["NCCL_SOCKET_IFNAME"] if gpus else [])]
        return settings + [Setting(name, "lo", why) for name in names]
    if gpus:
        settings += _between_nodes(fabric)
    gloo = fabric.high_speed[0] if fabric.network == "Slingshot" and fabric.high_speed else ""
    gloo = gloo or fabric.interface
    if gloo:
        settings.append(
            Setting(
                "GLOO_SOCKET_IFNAME", gloo,
                "gloo otherwise takes the address that the host's name has, often a loopback one",
            )
        )  # fmt: skip
    return settings


def _between_nodes(fabric: Fabric) -> list[Setting]:
    if fabric.network == "Slingshot":
        why = "Slingshot is reached through libfabric's plugin"
        return [
            Setting("NCCL_NET", "AWS Libfabric", f"{why}; without it NCCL stops, not slows down"),
            Setting("NCCL_SOCKET_IFNAME", "hsn", "processes find each other over Slingshot"),
            Setting("NCCL_NET_GDR_LEVEL", "PHB", f"{why}: GPU memory is sent directly"),
            Setting("FI_CXI_DISABLE_HOST_REGISTER", "1", "the site operators' advice for NCCL"),
            Setting("FI_MR_CACHE_MONITOR", "userfaultfd", "the default one can deadlock with NCCL"),
        ]
    if fabric.network in ("InfiniBand", "RoCE"):
        return _devices(fabric)
    if fabric.network == "Ethernet":
        why = "bridges of containers and virtual machines lead to no other node"
        return [Setting("NCCL_SOCKET_IFNAME", NOT_NETWORKS, why)]
    return []


def _devices(fabric: Fabric) -> list[Setting]:
    """Name the devices when some are of another network, or slower: NCCL would use them all."""
    active = [port for port in fabric.ports if port.active]
    fastest = max(p.gigabits for p in active if p.network == fabric.network)
    good = [p for p in active if p.network == fabric.network and p.gigabits == fastest]
    if len(good) == len(active):
        return []
    left = ", ".join(f"{p.device} ({p.network}, {p.gigabits:g} Gbit/s)" for p in active
                     if p not in good)  # fmt: skip
    names = ",".join(f"{port.device}:{port.number}" for port in good)
    return [Setting("NCCL_IB_HCA", f"={names}", f"NCCL would also use {left}")]


def explain(settings: Sequence[Setting], environment: Mapping[str, str]) -> list[str]:
    """Return a line for each setting: its value, or the one that stays, and the reason."""
    lines = []
    for setting in settings:
        kept = environment.get(setting.name)
        value = setting.value if kept is None else f"{kept}, as it is set already"
        lines.append(f"{setting.name}={value}  # {setting.reason}")
    return lines


def free_shared_memory() -> tuple[float, float]:
    """Return how much of /dev/shm is free, and its size, in GiB."""
    status = os.statvfs("/dev/shm")  # noqa: S108 - shared memory, not a temporary folder
    return status.f_bavail * status.f_frsize / GIB, status.f_blocks * status.f_frsize / GIB


def remarks(environment: Mapping[str, str]) -> list[str]:
    """Return what is odd about NCCL's variables that the user or the site has set."""
    found = []
    for name in sorted(environment):
        if name in UNKNOWN:
            found.append(f"{name} is no variable of NCCL's: it has no effect")
        elif DEBUGGING.match(name):
            found.append(
                f"{name}={environment[name]} is for debugging, and can make a good network slow"
            )
    return found
