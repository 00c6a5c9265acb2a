#!/usr/bin/env python3
"""A throw-away Slurm cluster on this machine, for tests: real slurmctld, slurmd, munged.

    sudo slurm/testcluster/cluster.py up   FOLDER [--accounting]
    sudo slurm/testcluster/cluster.py down FOLDER

`up` prints the line that makes Slurm's commands talk to it. Needs root, and the packages that
`install.sh` beside this file installs. Every process keeps its files in FOLDER; `down` stops the
processes that `up` started, and no others.

The nodes n1 and n2 are two slurmd on this machine, with eight made-up GPUs each: /dev/null under
eight other names, which is enough for Slurm to count and hand out.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

NODES = ("n1", "n2")
GPUS = 8
START_SECONDS = 30.0
HOSTS = Path("/etc/hosts")

SLURM_CONF = """\
ClusterName=giblet
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=100000,bf_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
JobRequeue=1
ReturnToService=2
KillWait=10
InactiveLimit=0
MinJobAge=300
SlurmctldTimeout=60
SlurmdTimeout={slurmd_timeout}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobAcctGatherType=jobacct_gather/none
{accounting}
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=2:00:00 State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=urgent Nodes=ALL MaxTime=2:00:00 State=UP PriorityTier=10 PreemptMode=OFF
"""

DBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdPort={port}
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=giblet_acct
"""


class ClusterError(RuntimeError):
    """The test cluster did not come up."""


@dataclass
class Cluster:
    """A test cluster whose files are in one folder.

    Parameters
    ----------
    folder : Path
        Is made; its path has to be short, as it holds sockets.
    slurmd_timeout : int
        Seconds after which a silent node is down.
    """

    folder: Path
    slurmd_timeout: int = 10
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def conf(self) -> Path:
        """The slurm.conf that SLURM_CONF has to name."""
        return self.folder / "slurm.conf"

    def up(self, *, accounting: bool = False) -> None:
        """Start all daemons and wait until the nodes are idle.

        Raises
        ------
        ClusterError
            When a daemon does not start.
        """
        if os.geteuid() != 0:
            raise ClusterError("the test cluster needs root")
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        _make_gpus()
        self._name_nodes()
        ports = _free_ports(2 + len(NODES))
        self._start_munge()
        if accounting:
            self._start_accounting(ports[1])
        self._configure(ports, accounting=accounting)
        self.start("slurmctld", ["slurmctld", "-D", "-i", "-f", str(self.conf)])
        for node in NODES:
            self.start_node(node)
        self._wait_idle()

    def _configure(self, ports: Sequence[int], *, accounting: bool) -> None:
        memory = 60000
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 "
            f"Port={port} CPUs=8 RealMemory={memory} Gres=gpu:{GPUS} State=UNKNOWN"
            for node, port in zip(NODES, ports[2:], strict=True)
        )
        storage = "AccountingStorageType=accounting_storage/none"
        if accounting:
            storage = (
                "AccountingStorageType=accounting_storage/slurmdbd\n"
                f"AccountingStorageHost=localhost\nAccountingStoragePort={ports[1]}\n"
                f"AccountingStoragePass={self.folder}/munge.socket"
            )
        self.conf.write_text(
            SLURM_CONF.format(
                host=socket.gethostname(),
                ports=ports,
                folder=self.folder,
                accounting=storage,
                nodes=nodes,
                slurmd_timeout=self.slurmd_timeout,
            )
        )
        gres = f"Name=gpu File=/dev/fakegpu[0-{GPUS - 1}]\n"
        (self.folder / "gres.conf").write_text(gres)

    def start_node(self, node: str) -> None:
        """Start the slurmd of a node."""
        self.start(f"slurmd-{node}", ["slurmd", "-D", "-f", str(self.conf), "-N", node])

    def start(
        self, name: str, command: Sequence[str], variables: Mapping[str, str] | None = None
    ) -> None:
        """Start a daemon and remember its process id."""
        with (self.folder / f"{name}.out").open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.folder,
                env={**os.environ, **(variables or {})},
            )
        self._started.append(process)
        (self.folder / f"{name}.started").write_text(str(process.pid))

    def kill(self, name: str) -> None:
        """Kill a daemon."""
        process = int((self.folder / f"{name}.started").read_text())
        os.kill(process, signal.SIGKILL)
        _wait_for(lambda: not self._alive(process), name)

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        self.start(
            "munged",
            [
                "munged",
                "--foreground",
                "--force",
                f"--key-file={key}",
                f"--socket={self.folder}/munge.socket",
                f"--pid-file={self.folder}/munged.pid",
                f"--log-file={self.folder}/munged.log",
                f"--seed-file={self.folder}/munged.seed",
            ],
        )
        _wait_for((self.folder / "munge.socket").exists, "munged")

    def _start_accounting(self, port: int) -> None:
        data = self.folder / "mysql"
        reached = self.folder / "mysql.sock"
        subprocess.run(
            ["mysql_install_db", "--user=root", f"--datadir={data}", "--skip-test-db",
             "--auth-root-authentication-method=normal"],
            check=True, capture_output=True,
        )  # fmt: skip
        self.start(
            "mariadbd",
            ["mariadbd", "--no-defaults", "--user=root", f"--datadir={data}",
             f"--socket={reached}", "--skip-networking", f"--pid-file={data}/mariadb.pid"],
        )  # fmt: skip
        _wait_for(reached.exists, "mariadbd")
        conf = self.folder / "slurmdbd.conf"
        conf.write_text(DBD_CONF.format(folder=self.folder, port=port))
        conf.chmod(0o600)
        self.start(
            "slurmdbd",
            ["slurmdbd", "-D"],
            {"MYSQL_UNIX_PORT": str(reached), "SLURM_CONF": str(self.conf)},
        )
        _wait_for(lambda: _answers(port), "slurmdbd")

    def _name_nodes(self) -> None:
        """Let the nodes' names resolve, as a cluster's do."""
        with HOSTS.open("a") as hosts:
            hosts.write(f"127.0.0.1 {' '.join(NODES)} {self._hosts_mark}\n")

    @property
    def _hosts_mark(self) -> str:
        """What tells this cluster's line from those of others that run beside it."""
        return f"# giblet-hpc test cluster in {self.folder}/"

    def _wait_idle(self) -> None:
        def idle() -> bool:
            done = subprocess.run(
                ["sinfo", "-h", "-N", "-o", "%N %t"],
                env={**os.environ, "SLURM_CONF": str(self.conf)},
                capture_output=True,
                text=True,
                check=False,
            )
            states = dict(line.split() for line in done.stdout.splitlines())
            return all(states.get(node) == "idle" for node in NODES)

        _wait_for(idle, "the nodes")

    def down(self) -> None:
        """Stop what was started, the daemons that depend on others first."""
        order = ("slurmd", "slurmctld", "slurmdbd", "mariadbd", "munged")
        files = sorted(
            self.folder.glob("*.started"),
            key=lambda file: order.index(file.stem.split("-")[0]),
        )
        for file in files:
            process = int(file.read_text())
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
            _wait_for(lambda p=process: not self._alive(p), file.stem, kill=process)
            file.unlink()
        for own in self._started:
            own.wait(START_SECONDS)
        lines = HOSTS.read_text().splitlines(keepends=True)
        HOSTS.write_text("".join(line for line in lines if self._hosts_mark not in line))

    def _alive(self, process: int) -> bool:
        for own in self._started:
            if own.pid == process:
                return own.poll() is None
        return Path(f"/proc/{process}").exists()


def _make_gpus() -> None:
    for number in range(GPUS):
        device = Path(f"/dev/fakegpu{number}")
        if not device.exists():
            os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_for(ready, what: str, *, kill: int = 0) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + START_SECONDS
    while not ready():
        if time.monotonic() > end:
            if kill:
                os.kill(kill, signal.SIGKILL)
                return
            raise ClusterError(f"{what}: not ready after {START_SECONDS:.0f} s")
        time.sleep(0.1)


def main() -> None:
    """Carry out the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("action", choices=["up", "down"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--accounting", action="store_true")
    arguments = parser.parse_args()
    cluster = Cluster(arguments.folder.resolve())
    if arguments.action == "down":
        cluster.down()
        return
    cluster.up(accounting=arguments.accounting)
    # What the caller evaluates.
    sys.stdout.write(f"export SLURM_CONF={cluster.conf}\n")


if __name__ == "__main__":
    main()
