"""The fabric detector on the sysfs of six sites, and what is chosen for each."""

from __future__ import annotations

from pathlib import Path

import pytest

from giblet_hpc.jobs.node import fabric

NVLINK = """\
\x1b[4m\tGPU0\tGPU1\tGPU2\tGPU3\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m
GPU0\t X \tNV18\tNV18\tNV18\tPIX\t0-55\t0\t\tN/A
GPU1\tNV18\t X \tNV18\tNV18\tNODE\t0-55\t0\t\tN/A
GPU2\tNV18\tNV18\t X \tNV18\tSYS\t56-111\t1\t\tN/A
GPU3\tNV18\tNV18\tNV18\t X \tSYS\t56-111\t1\t\tN/A
NIC0\tPIX\tNODE\tSYS\tSYS\t X
"""
PCIE = """\
\tGPU0\tGPU1\tCPU Affinity\tNUMA Affinity
GPU0\t X \tNODE\t0-31\t0
GPU1\tNODE\t X \t0-31\t0
"""
NVLINK_PAIRS = """\
\tGPU0\tGPU1\tGPU2\tGPU3
GPU0\t X \tNV4\tSYS\tSYS
GPU1\tNV4\t X \tSYS\tSYS
GPU2\tSYS\tSYS\t X \tNV4
GPU3\tSYS\tSYS\tNV4\t X
"""


class Site:
    """Writes the part of a node's sysfs and procfs that tells its fabric."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, name: str, text: str) -> None:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def port(
        self, device: str, layer: str, gigabits: int, *, state: str = "4: ACTIVE", driver: str = ""
    ) -> None:
        folder = f"sys/class/infiniband/{device}/ports/1"
        self.write(f"{folder}/link_layer", f"{layer}\n")
        self.write(f"{folder}/state", f"{state}\n")
        self.write(f"{folder}/rate", f"{gigabits} Gb/sec (4X HDR)\n")
        if driver:
            (self.root / f"sys/bus/pci/drivers/{driver}").mkdir(parents=True, exist_ok=True)
            link = self.root / f"sys/class/infiniband/{device}/device/driver"
            link.parent.mkdir(parents=True)
            link.symlink_to(self.root / f"sys/bus/pci/drivers/{driver}")

    def interface(self, name: str, *, default: bool = False, metric: int = 0) -> None:
        self.write(f"sys/class/net/{name}/operstate", "up\n")
        if default:
            routes = self.root / "proc/net/route"
            head = (
                "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
            )
            before = routes.read_text() if routes.exists() else head
            line = f"{name}\t00000000\t0101A8C0\t0003\t0\t0\t{metric}\t00000000\t0\t0\t0\n"
            self.write("proc/net/route", before + line)

    def numa(self, number: int, kilobytes: int, cores: str) -> None:
        folder = f"sys/devices/system/node/node{number}"
        self.write(f"{folder}/meminfo", f"Node {number} MemTotal:  {kilobytes} kB\n")
        self.write(f"{folder}/cpulist", f"{cores}\n")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def chosen(found: fabric.Fabric, *, nodes: int = 2, gpus: int = 4) -> dict[str, str]:
    return {setting.name: setting.value for setting in fabric.choose(found, nodes=nodes, gpus=gpus)}


def test_nvlink_nodes_on_infiniband_need_nothing_of_nccl(site: Site) -> None:
    for number in range(4):
        site.port(f"mlx5_{number}", "InfiniBand", 400)
    site.interface("eno1", default=True)
    for number in range(2):
        site.numa(number, 1056000000, "0-55")
    found = fabric.detect(site.root, NVLINK)
    assert (found.network, found.gpu_links, found.gigabits) == ("InfiniBand", "NVLink", 1600)
    assert chosen(found) == {"GLOO_SOCKET_IFNAME": "eno1"}
    alone = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    assert chosen(found, nodes=1) == alone, "nobody else has to reach ranks of one node"


def test_a_slow_storage_network_beside_infiniband_is_left_out(site: Site) -> None:
    site.port("mlx5_0", "InfiniBand", 200)
    site.port("mlx5_1", "InfiniBand", 200)
    site.port("mlx5_2", "InfiniBand", 200, state="1: DOWN")
    site.port("mlx5_bond_0", "Ethernet", 25)
    site.interface("bond0", default=True)
    found = fabric.detect(site.root, NVLINK_PAIRS)
    assert found.gpu_links == "PCIe", "not all GPUs reach each other by NVLink"
    assert chosen(found)["NCCL_IB_HCA"] == "=mlx5_0:1,mlx5_1:1"
    (reason,) = [s.reason for s in fabric.choose(found, nodes=2, gpus=4) if "HCA" in s.name]
    assert "mlx5_bond_0 (RoCE, 25 Gbit/s)" in reason


def test_roce(site: Site) -> None:
    site.port("mlx5_0", "Ethernet", 100)
    site.interface("ens1f0", default=True)
    found = fabric.detect(site.root, PCIE)
    assert (found.network, found.gpu_links, found.gigabits) == ("RoCE", "PCIe", 100)
    assert chosen(found) == {"GLOO_SOCKET_IFNAME": "ens1f0"}


def test_efa_is_known_by_its_driver(site: Site) -> None:
    site.port("rdmap16s27", "Unspecified", 100, driver="efa")
    site.interface("enp39s0", default=True)
    found = fabric.detect(site.root, NVLINK)
    assert found.network == "EFA"
    assert chosen(found) == {"GLOO_SOCKET_IFNAME": "enp39s0"}


def test_slingshot(site: Site) -> None:
    site.write("sys/class/cxi/cxi0/device/properties/rate", "BS_200G\n")
    for number in range(4):
        site.interface(f"hsn{number}")
    site.interface("nmn0", default=True)
    found = fabric.detect(site.root, NVLINK)
    assert (found.network, found.high_speed) == ("Slingshot", ("hsn0", "hsn1", "hsn2", "hsn3"))
    settings = chosen(found)
    assert settings["NCCL_NET"] == "AWS Libfabric"
    assert settings["NCCL_SOCKET_IFNAME"] == "hsn"
    assert settings["NCCL_NET_GDR_LEVEL"] == "PHB"
    assert settings["FI_CXI_DISABLE_HOST_REGISTER"] == "1"
    assert settings["FI_MR_CACHE_MONITOR"] == "userfaultfd"
    assert settings["GLOO_SOCKET_IFNAME"] == "hsn0"


def test_a_workstation_on_ethernet_with_an_odd_numa_node(site: Site) -> None:
    site.interface("lo")
    site.interface("docker0", default=True, metric=700)
    site.interface("enp5s0", default=True, metric=100)
    site.numa(0, 263000000, "0-31,64-95")
    site.numa(1, 0, "32-63,96-127")
    found = fabric.detect(site.root, PCIE)
    assert (found.network, found.interface) == ("Ethernet", "enp5s0")
    assert found.odd_numa == ("node1 has no memory",)
    assert chosen(found, nodes=1)["NCCL_CUMEM_HOST_ENABLE"] == "0"
    assert chosen(found, nodes=1, gpus=0) == {"GLOO_SOCKET_IFNAME": "lo"}
    assert chosen(found)["NCCL_SOCKET_IFNAME"] == "^lo,docker,virbr,veth"
    assert chosen(found, gpus=0) == {"GLOO_SOCKET_IFNAME": "enp5s0"}


def test_every_value_has_a_reason_and_none_is_for_debugging(site: Site) -> None:
    site.interface("hsn0")
    site.numa(0, 0, "")
    for setting in fabric.choose(fabric.detect(site.root, PCIE), nodes=2, gpus=2):
        assert setting.reason
        assert not fabric.DEBUGGING.match(setting.name)


def test_nothing_is_known_of_an_empty_machine(tmp_path: Path) -> None:
    found = fabric.detect(tmp_path, "")
    assert found == fabric.Fabric("none")
    assert chosen(found) == {}


def test_remarks_on_what_the_user_set() -> None:
    said = fabric.remarks(
        {"NCCL_SHM_DISABLE": "1", "NCCL_TIMEOUT": "3600", "NCCL_IB_HCA": "mlx5", "HOME": "/"}
    )
    assert len(said) == 2
    assert "NCCL_SHM_DISABLE=1 is for debugging" in said[0]
    assert "NCCL_TIMEOUT is no variable of NCCL's" in said[1]
