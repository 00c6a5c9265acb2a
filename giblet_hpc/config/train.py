"""How it is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from giblet_hpc.config.section import Count, NonNegative, Positive, Section, Weight


class Train(Section):
    """How it is trained."""

    epochs: Count = 50
    """Passes over the training TRs."""
    window_trs: Count = 32
    """Consecutive TRs in a sample. 1 for the dense model."""
    batch_windows: Count = 4
    """Samples in a step, over all ranks and accumulations."""
    accumulation: Count = 1
    """Parts into which each rank cuts its share of a step, to save memory."""
    lr: Positive = 1e-3
    """Peak learning rate of AdamW."""
    min_lr: Weight = 1e-6
    """Learning rate at the end of the cosine."""
    weight_decay: Weight = 1e-2
    """AdamW's decoupled weight decay."""
    start_from: Path | None = None
    """Weights to start from: a file of `giblet-hpc export`. Tensors that have another name or
    shape there, such as those of other voxels, are drawn as without it, and are named."""
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    """`adamw8bit`: AdamW with moments of 8 bits (torchao), a quarter of their memory. Needs a C
    compiler on the node, and `model.parallel: ddp`."""
    schedule: Literal["cosine", "step", "none"] = "cosine"
    """Learning rate after warm-up: cosine, divided by 10 at each third, or constant."""
    warmup_epochs: Weight = 2.0
    """Epochs of linear warm-up."""
    clip: Positive = 1.0
    """Gradient norm above which gradients are scaled down."""
    patience: Count | None = None
    """Stop after this many validations without improvement of the scans' error. Null: never."""
    validate_every: Count = 1
    """Epochs between validations."""
    checkpoint_every: Count = 100
    """Steps between checkpoints; one is also written at each validation that improves and at
    the end."""
    keep_last: Count = 2
    """Checkpoints to keep besides the best."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the forward pass. `auto`: bf16 where the GPU has it. Weights and optimizer
    state are always float32."""
    place: Literal["auto", "memory", "disk", "store"] = "auto"
    """Where ranks read a step's TRs from: node memory, the node's disk (TMPDIR), or the store
    itself, at every step. `auto`: the first of these that has room. Results are the same."""
    log_every: Count = 10
    """Steps between log lines and TensorBoard points."""
    check_lag: bool = True
    """Before the first step, refuse scans that clearly follow the stimulus best at a lag that blood
    flow cannot have, such as a negative one (`giblet-hpc inspect alignment`)."""
    stop_when_unhealthy: bool = False
    """Stop when a validation finds that the training cannot succeed (`giblet-hpc health`)."""
    profile: tuple[NonNegative, NonNegative] | None = None
    """Steps of which rank 0 writes a profile (torch.profiler) into the run's folder, and on a GPU a
    snapshot of its memory: the first, and the one after the last."""
    seed: NonNegative = 0
    """Seed of initialisation, order and dropout."""
    seeds: Count = 1
    """Networks that are trained alike but for their seed, from `seed` on, one after the other; what
    they predict is averaged."""

    choose: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    """Fields of model, loss and train with values to choose from, as `{loss.map_penalty: [3, 10,
    30]}`: for each fold, networks with each combination predict `split.inner_blocks` blocks of its
    training TRs, each from the others, and the combination with the highest mean r is trained on
    all of them."""

    @model_validator(mode="after")
    def _profile_of_some_steps(self) -> Self:
        if self.profile is not None and self.profile[0] >= self.profile[1]:
            raise ValueError("profile: the second step has to be after the first")
        return self
