"""What training would take in each parallel mode: memory, bytes, time; and which mode to use.

The network is built on the meta device and one step of it is traced there, so that layers and
activations are those of the code. Times are sums, without overlap, of what memory, arithmetic and
links allow: bounds to compare modes by, not predictions to the millisecond.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from giblet_hpc.config.batch import ranks_of_a_team, require_shared_batch
from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import ConfigError
from giblet_hpc.plans.hardware import GIB, Place
from giblet_hpc.plans.study_size import StudySize
from giblet_hpc.training import fully_sharded, node_memory
from giblet_hpc.training.network_size import Network, network_of

MODES = ("ddp", "tensor", "fsdp")
"""By how simple they are; of two that are as fast, the first is chosen."""
RESERVED = 1.5 * GIB
"""Of each GPU: CUDA's context, NCCL's buffers, what the allocator cannot use."""
PROCESS = 1.5 * GIB
"""Of a node's memory for each rank: Python, torch, CUDA."""
DISK = 1e9
"""Bytes a second of a checkpoint, written and hashed, of each node."""
READS, UPDATES = 10, 48
"""Bytes of a GPU's memory that a step moves for each weight: a cast to bf16 and two products that
read it; and where it is kept its gradient, written and scaled (20), and AdamW's (28)."""
OVERHEAD = 0.01
"""Seconds of a step in any mode: starting kernels, preparing a batch."""
BUCKET = 25e6
"""Bytes of gradients that DDP sends at a time."""
LATENCY = 5e-5
"""Seconds of a collective, however little it sends."""
MOMENTS = {"adamw": 8.0, "adamw8bit": 2.03}
"""Bytes of an optimizer's two moments for each weight."""
ABOUT = 1.25
"""By how much step times have to differ for a plan to tell which is shorter."""


@dataclass(frozen=True)
class Estimate:
    """What one mode takes.

    Parameters
    ----------
    mode : str
    weights : int
        Parameters of the network.
    memory : mapping of str to float
        Bytes on each GPU: parameters, gradients, optimizer, gathered, activations.
    node_memory : mapping of str to float
        Bytes on the fullest node: study, processes, checkpoint.
    sent : float
        Bytes that each GPU sends in a step.
    seconds : mapping of str to float
        Of a step: memory, arithmetic, links.
    checkpoint : float
        Its bytes.
    obstacle : str
        Why it cannot be used; empty where it can.
    """

    mode: str
    weights: int
    memory: Mapping[str, float]
    node_memory: Mapping[str, float]
    sent: float
    seconds: Mapping[str, float]
    checkpoint: float
    obstacle: str

    @property
    def gpu_bytes(self) -> float:
        """All that a GPU has to hold."""
        return sum(self.memory.values())

    @property
    def step_seconds(self) -> float:
        """Of one step."""
        return sum(self.seconds.values())


def estimates(config: RunConfig, size: StudySize, place: Place) -> dict[str, Estimate]:
    """Return what each mode takes, by mode.

    Parameters
    ----------
    config : RunConfig
    size : StudySize
    place : Place
    """
    network = network_of(config, size)
    return {mode: _Mode(mode, config, network, size, place).estimate() for mode in MODES}


class _Mode:
    """One mode's arithmetic."""

    def __init__(
        self, mode: str, config: RunConfig, network: Network, size: StudySize, place: Place
    ) -> None:
        self.config = with_mode(config, mode)
        self.mode, self.network, self.size, self.place = mode, network, size, place
        self.team = 1
        if mode == "tensor" and config.model.kind == "dense":
            self.team = config.model.tensor_ranks or place.gpus
        self.sharing = max(1, place.ranks // self.team)
        divided = sum(
            weights
            for name, weights in network.layers.items()
            if any(name == one or name.startswith(f"{one}.frames.") for one in network.sent)
        )
        share = divided / self.team + (network.weights - divided)
        self.held = network.weights / place.ranks if mode == "fsdp" else share
        self.computed = network.weights if mode == "fsdp" else self.held
        self.bf16 = config.train.precision != "fp32"
        self.moments = MOMENTS[config.train.optimizer]

    def estimate(self) -> Estimate:
        memory, on_node = self.memory(), self.node_memory()
        inside, across = self.sent()
        speed = self.place.link
        seconds = {
            "memory": (READS * self.computed + UPDATES * self.held)
            / (self.place.gpu.bandwidth * 1e9),
            "arithmetic": self.operations() / (self.place.gpu.tflops * 1e12),
            "links": inside / (speed * 1e9) + across / (self.place.between_all * 1e9),
            "overhead": OVERHEAD + LATENCY * self.collectives(),
        }
        return Estimate(
            self.mode, self.network.weights, memory, on_node, inside + across, seconds,
            (4 + self.moments) * self.network.weights, self.obstacle(memory, on_node),
        )  # fmt: skip

    def windows(self) -> float:
        """Return how many windows a rank computes at a time."""
        return self.config.train.batch_windows / (self.sharing * self.config.train.accumulation)

    def trs(self) -> float:
        """Return how many TRs a rank computes in a step."""
        each = self.config.train.window_trs + self.config.memory_trs
        return self.config.train.batch_windows / self.sharing * each

    def operations(self) -> float:
        """Return a step's floating-point operations on a rank: forward, and twice that backward."""
        windows = self.config.train.batch_windows / self.sharing
        return 3 * self.network.operations * windows * self.computed / self.network.weights

    def memory(self) -> dict[str, float]:
        """Return the bytes on a GPU, by what they are for."""
        held, windows = self.held, self.windows()
        return {
            "parameters": 4 * held,
            "gradients": 4 * held,
            "optimizer": self.moments * held,
            "gathered": self.gathered(),
            "activations": self.network.activations * windows,
            "data": 2 * self.network.inputs * windows,
            "reserved": RESERVED,
        }

    def gathered(self) -> float:
        """Return the bytes of weights in the form that products need."""
        if self.mode != "fsdp":
            return 2 * self.held if self.bf16 else 0.0
        each = 2 if self.bf16 else 4
        large = sorted(
            (n for n in self.network.layers.values() if n > fully_sharded.LARGE), reverse=True
        )
        first, second = (*large, 0, 0)[:2]
        rest = self.network.weights - sum(large)
        # A layer, the next one, its whole gradient and the same in float32; and small layers.
        return each * (first + second) + (each + 4) * first + 8 * rest

    def node_memory(self) -> dict[str, float]:
        """Return the bytes on the first node; a study that would fill it is kept on its disk."""
        building = 4 * max(self.network.layers.values()) * self.place.gpus
        # A copy of what is being written of a checkpoint.
        staged = (4 + self.moments) * self.network.weights / self.place.nodes
        study, limit = self.size.bytes_in_memory, self.place.node_memory
        on_disk = limit is not None and study > node_memory.SHARE * limit * GIB
        return {
            "study": 0 if on_disk else study,
            "processes": PROCESS * self.place.gpus,
            "model": max(building, staged),
        }

    def sent(self) -> tuple[float, float]:
        """Return the bytes that a GPU sends in a step: to its team, and to all."""
        ranks, weights = self.place.ranks, self.network.weights
        part = (ranks - 1) / ranks
        if self.mode == "fsdp":
            each = 2 if self.bf16 else 4
            return 0.0, part * (2 * each * self.config.train.accumulation + 4) * weights
        across = 2 * (self.sharing - 1) / self.sharing * 4 * self.held
        numbers = sum(self.network.sent.values()) if self.team > 1 else 0
        return 4 * numbers * self.trs() * (self.team - 1) / self.team, across

    def collectives(self) -> float:
        """Return how often ranks exchange something in a step."""
        each = self.config.train.accumulation
        large = sum(weights > fully_sharded.LARGE for weights in self.network.layers.values())
        if self.mode == "fsdp":
            return 3 * large * each
        inside = 3 * len(self.network.sent) * each if self.team > 1 else 0
        return inside + (4 * self.held / BUCKET if self.sharing > 1 else 0)

    def obstacle(self, memory: Mapping[str, float], on_node: Mapping[str, float]) -> str:
        """Return why this mode cannot be used; empty where it can."""
        if self.mode != "ddp" and self.config.train.optimizer == "adamw8bit":
            return "only with train.optimizer adamw"
        if self.mode != "ddp" and self.config.model.compile:
            return "only without model.compile"
        if self.mode == "tensor" and self.config.model.kind != "dense":
            return "only for model.kind dense"
        if self.mode != "ddp" and (self.place.ranks if self.mode == "fsdp" else self.team) == 1:
            return "needs several GPUs" + (" a node" if self.mode == "tensor" else "")
        try:
            ranks_of_a_team(self.config, self.place.gpus)
            require_shared_batch(self.config, self.sharing)
        except ConfigError as error:
            return str(error)
        if (needed := sum(memory.values()) / GIB) > self.place.gpu.memory:
            return f"{needed:.1f} GiB a GPU: more than {self.place.gpu.memory:g}"
        limit = self.place.node_memory
        if limit is not None and (needed := sum(on_node.values()) / GIB) > limit:
            return f"{needed:.1f} GiB a node: more than {limit:g}"
        return ""


def with_mode(config: RunConfig, mode: str) -> RunConfig:
    """Return a config with another parallel mode."""
    team = config.model.tensor_ranks if mode == "tensor" else None
    model = config.model.model_copy(update={"parallel": mode, "tensor_ranks": team})
    return config.model_copy(update={"model": model})


def used_mode(config: RunConfig, place: Place) -> str:
    """Return a config's mode, but `ddp` where a rank has nobody to share with."""
    mode = config.model.parallel
    team = config.model.tensor_ranks or place.gpus
    alone = (mode == "fsdp" and place.ranks == 1) or (mode == "tensor" and team == 1)
    return "ddp" if alone else mode


def choose(found: Mapping[str, Estimate]) -> Estimate | None:
    """Return the fastest mode that fits; of those about as fast, the simplest. None fits: None."""
    fitting = [estimate for estimate in found.values() if not estimate.obstacle]
    if not fitting:
        return None
    fastest = min(estimate.step_seconds for estimate in fitting)
    return next(e for e in fitting if e.step_seconds <= ABOUT * fastest)


def fitting_place(
    config: RunConfig, size: StudySize, place: Place, *, most: int
) -> tuple[Place, Estimate] | None:
    """Return the next larger place at which some mode fits, of up to 16 nodes; None: none does.

    Parameters
    ----------
    config : RunConfig
    size : StudySize
    place : Place
    most : int
        GPUs of a whole node.
    """
    network = network_of(config, size)
    every = [(gpus, place.nodes) for gpus in (1, 2, 4, 8, 16) if place.gpus <= gpus < most]
    every += [(most, nodes) for nodes in (1, 2, 4, 8, 16) if nodes >= place.nodes]
    for gpus, nodes in every:
        memory = place.node_memory and place.node_memory * gpus / place.gpus
        larger = replace(place, gpus=gpus, nodes=nodes, node_memory=memory)
        found = {m: _Mode(m, config, network, size, larger).estimate() for m in MODES}
        if best := choose(found):
            return larger, best
    return None
