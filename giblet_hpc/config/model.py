"""Which network, and its sizes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from giblet_hpc.config.section import Count, Fraction, NonNegative, Positive, Section, whole_trs


class TemporalModel(Section):
    """Sizes of the temporal model."""

    frame_channels: Count = 32
    """Channels of the first layer of the frame encoder."""
    width: Count = 512
    """Width of each modality's encoding."""
    code_width: Count = 64
    """Width of the features learned of each audio frame."""
    context_layers: NonNegative = 0
    """Causal convolutions over TRs before the bottleneck (kernel of 3 TRs, dilated)."""
    rank: Count = 128
    """Components shared by all voxels."""
    subject_rank: NonNegative = 16
    """Further components of each subject's own."""
    fir_seconds: Positive = 15.0
    """How far the hemodynamic response reaches back, in whole TRs."""
    hrf: Literal["learned", "fixed"] = "learned"
    """`learned`: a causal FIR a component, started at the canonical response. `fixed`: the
    canonical response itself."""
    dropout: Fraction = 0.1
    """Dropout before the bottleneck and before the voxels."""
    modality_dropout: Fraction = 0.0
    """Chance to blank a modality in a training window (one is always kept)."""

    def fir_trs(self, tr: float) -> int:
        """Return how many lags responses have at TRs of ``tr`` seconds, from 0."""
        return whole_trs(self.fir_seconds, tr)


class Model(Section):
    """Which network."""

    kind: Literal["temporal", "dense"] = "temporal"
    """`temporal`: frame encoder, embeddings, learned FIR, low-rank heads. `dense`: the original
    fully connected autoencoder, parameter for parameter."""
    parallel: Literal["auto", "ddp", "fsdp", "tensor"] = "ddp"
    """How ranks share the work. `auto`: the fastest of these that fits into the GPUs' memory, as
    `giblet-hpc plan` shows. `ddp`: each has the whole model. `fsdp`: each has a share of every
    layer, of its gradients and of the optimizer's, and gathers a layer when it needs it: less
    memory, more traffic. `tensor`, of the dense model: the ranks of a node compute each batch
    together, and each has a share of the largest layers: what goes between ranks is activations,
    not weights. Each goes on from the others' checkpoints."""
    tensor_ranks: Count | None = None
    """With `parallel: tensor`, how many ranks compute a batch together, of one node; those of a
    node by default. Groups of them share batches as in `ddp`."""
    width: Annotated[float, Field(gt=0, le=4)] = 1.0
    """Of the dense model: what the widths of its hidden layers are multiplied by; 1 for the
    original's."""
    bottleneck: Count = 2048
    """Width of the bottleneck."""
    norm: Literal["batch", "layer"] = "batch"
    """Of the dense model. `batch`: the original's, over the TRs of all ranks. `layer`: each
    TR by itself, so that batches may be as small as memory asks, and training and validation
    compute the same."""
    span: Count | None = None
    """Of the dense model: its first layer sees films in at most so many directions, those that
    the training TRs span (their principal components, uncentred), in place of all pixels: the
    original's 3.5 billion parameters become 1.7. Null: all pixels."""
    recompute: bool = False
    """Keep only the inputs of each part of the network (a modality's encoder, a decoder, the
    trunk) for the backward pass, and compute the rest again there: less memory, up to a third more
    time. Also called activation checkpointing."""
    compile: bool = False
    """Compile each part of the network on the node (torch.compile). Needs a C compiler there. With
    `parallel: ddp`."""
    temporal: TemporalModel = TemporalModel()
    """Sizes of the temporal model."""

    @model_validator(mode="after")
    def _options_of_the_dense_model(self) -> Self:
        if self.kind == "dense":
            return self
        if self.norm == "layer":
            raise ValueError("norm: layer is for kind: dense; the temporal model has no BatchNorm")
        if self.parallel == "tensor":
            raise ValueError("parallel: tensor is for kind: dense, whose layers it divides")
        if self.span is not None:
            raise ValueError("span is for kind: dense, which sees all pixels")
        if self.width != 1.0:
            raise ValueError("width is for kind: dense; the temporal model has temporal.width")
        return self

    @model_validator(mode="after")
    def _what_is_compiled(self) -> Self:
        if self.compile and self.parallel != "ddp":
            raise ValueError("compile is for parallel: ddp")
        if self.compile and self.recompute:
            raise ValueError("compile and recompute exclude each other")
        return self

    @model_validator(mode="after")
    def _ranks_of_tensor_mode(self) -> Self:
        if self.tensor_ranks is not None and self.parallel not in ("tensor", "auto"):
            raise ValueError("tensor_ranks is for parallel: tensor")
        return self
