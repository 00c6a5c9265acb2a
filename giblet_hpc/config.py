"""The one schema: everything a run depends on, with its unit and its bounds.

A config is YAML. Fields that are left out take the defaults below; unknown fields are errors.
`giblet-hpc config schema` prints it as JSON Schema.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from giblet_hpc.config_study import (
    Annotations,
    Bold,
    Count,
    Fraction,
    NonNegative,
    Positive,
    ScanRun,
    Section,
    Study,
    Weight,
)

__all__ = ["Annotations", "Bold", "RunConfig", "ScanRun", "Section", "Study"]


class VideoFeatures(Section):
    """Frames of the film, as pixels."""

    height: Count = 90
    """Rows of a frame after area-averaging."""
    width: Count = 160
    """Columns of a frame after area-averaging."""
    fps: Positive | None = None
    """Frames per second to sample, by timestamp. Null: the rate of the first run's film."""
    frame_skip: Count = 1
    """Keep every k-th frame of a TR: ceil(round(fps * TR) / k) frames."""


class AudioFeatures(Section):
    """The sound, as EnCodec codes or as a log-mel spectrogram."""

    kind: Literal["codes", "mel"] = "codes"
    """`codes`: discrete EnCodec codes at 75 frames a second. `mel`: log-mel energies."""
    codec: str = "facebook/encodec_24khz"
    """EnCodec weights: a folder, a name in the Hugging Face cache, or `untrained` for a
    fixed-seed codec without training (for tests and demos: its codes mean little)."""
    backend: Literal["transformers", "encodec"] = "transformers"
    """Which implementation computes the codes."""
    bandwidth_kbps: Positive = 6.0
    """Bit rate of the codes: 0.75 kbps a codebook, so 6 gives 8 codebooks."""
    chunk_seconds: Positive = 30.0
    """Sound that is encoded at once."""
    context_seconds: Weight = 2.0
    """Sound before a chunk that the codec hears first, so that its memory is warm."""
    mel_bands: Count = 64
    """Bands of the log-mel spectrogram."""

    @model_validator(mode="after")
    def _check_backend(self) -> AudioFeatures:
        if self.backend == "encodec" and not Path(self.codec).is_absolute():
            raise ValueError(
                "backend: encodec needs codec to be the absolute path of a folder with the "
                "package's checkpoint"
            )
        return self


class TextFeatures(Section):
    """The words of the annotated segments."""

    encoder: str = "BAAI/bge-large-en-v1.5"
    """A transformers encoder (folder, or a name in the Hugging Face cache), or `lsa`: TF-IDF and
    truncated SVD, fitted on the training TRs of each fold."""
    pooling: Literal["auto", "cls", "mean"] = "auto"
    """How token vectors become one. `auto` reads the model's own pooling file."""
    segments: Count = 3
    """Overlapping segments whose embeddings are concatenated at a TR (not for `lsa`, which sums
    the words of all of them)."""
    dimensions: Count = 100
    """Components of `lsa`."""
    forward_fill: bool = True
    """TRs without a segment repeat the one before."""


class Features(Section):
    """Which modalities are used: any non-empty subset."""

    video: VideoFeatures | None = None
    """Null: no video."""
    audio: AudioFeatures | None = None
    """Null: no audio."""
    text: TextFeatures | None = None
    """Null: no text."""

    @model_validator(mode="after")
    def _some_modality(self) -> Self:
        if not self.modalities:
            raise ValueError("at least one of video, audio, text must be given")
        return self

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities in use, in a fixed order."""
        return tuple(name for name in ("video", "audio", "text") if getattr(self, name))


class Split(Section):
    """Which TRs train, validate and test. Always whole runs or contiguous blocks."""

    scheme: Literal["leave-one-run-out", "runs", "blocks"] = "leave-one-run-out"
    """`leave-one-run-out`: one fold a run; `runs`: test on test_runs; `blocks`: test on the last
    part of every run."""
    test_runs: tuple[str, ...] = ()
    """Runs to test on, for the scheme `runs`."""
    test_fraction: Fraction = 0.2
    """Share of each run to test on, for the scheme `blocks`."""
    validation_fraction: Fraction = 0.15
    """Share at the end of each training part that chooses the best epoch."""
    purge_trs: NonNegative = 10
    """TRs left out on both sides of a boundary inside a run. At least the model's memory."""


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
    fir_trs: Count = 10
    """Past TRs that the hemodynamic response reaches back."""
    hrf: Literal["learned", "fixed"] = "learned"
    """`learned`: a causal FIR a component, started at the canonical response. `fixed`: the
    canonical response itself."""
    dropout: Fraction = 0.1
    """Dropout before the bottleneck and before the voxels."""
    modality_dropout: Fraction = 0.0
    """Chance to blank a modality in a training window (one is always kept)."""


class Model(Section):
    """Which network."""

    kind: Literal["temporal", "dense"] = "temporal"
    """`temporal`: frame encoder, embeddings, learned FIR, low-rank heads. `dense`: the original
    fully connected autoencoder, parameter for parameter."""
    bottleneck: Count = 2048
    """Width of the bottleneck."""
    temporal: TemporalModel = TemporalModel()
    """Sizes of the temporal model."""


class Loss(Section):
    """What is minimised: weighted errors of the scans and of each reconstruction."""

    normalise: Literal["variance", "std", "none"] = "variance"
    """Each error over its target's training-set variance (predicting the mean costs 1), over its
    standard deviation (the original's), or raw."""
    fmri: Literal["mse", "mae", "correlation"] = "mse"
    """Error of the predicted scans."""
    fmri_weight: Weight = 1.0
    """Weight of the scans' error."""
    correlation_weight: Weight = 0.0
    """Weight of (1 - r) added to the scans' error; r is over a rank's TRs of a batch."""
    map_penalty: Weight = 0.0
    """Ridge penalty on the linear map from each vector feature (text, log-mel; unit variance) at
    each lag to each voxel, as the temporal model's shared part composes it. For films too short to
    learn from."""
    reconstruction_weight: Weight = 0.1
    """Weight of all reconstruction errors together."""
    video_weight: Weight = 1.0
    """Weight of the video reconstruction."""
    audio_weight: Weight = 1.0
    """Weight of the audio reconstruction."""
    text_weight: Weight = 1.0
    """Weight of the text reconstruction."""
    audio_frames: Count = 16
    """Audio frames of a TR on which the code reconstruction is trained at a step, drawn anew
    each step. Validation uses evenly spaced ones."""


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
    log_every: Count = 10
    """Steps between log lines and TensorBoard points."""
    seed: NonNegative = 0
    """Seed of initialisation, order and dropout."""


class Ridge(Section):
    """The linear baseline that every report shows beside the network."""

    delays: tuple[NonNegative, ...] | None = None
    """Stimulus lags in TRs. Null: from 1 TR to 12 s."""
    components: Count = 100
    """Principal components kept of each modality."""
    alphas: tuple[Positive, ...] = tuple(10.0**k for k in range(-1, 8))
    """Penalties to choose from, for each voxel, by cross-validation inside the training TRs."""
    folds: int = Field(default=5, ge=2)
    """Contiguous blocks of that cross-validation."""


class Evaluate(Section):
    """How it is scored."""

    ridge: Ridge = Ridge()
    """The linear baseline."""
    samples: Count = 4
    """Test TRs whose reconstruction is drawn."""
    min_ceiling: Fraction = 0.1
    """Voxels with a lower noise ceiling get no normalised r."""
    write_scans: bool = False
    """Write each subject's predicted test TRs as NIfTI, in the units of the scans."""
    best_r: Path | None = None
    """NIfTI with the best r that any model can reach, a volume a subject, where the truth is
    known (`giblet-hpc synthesize` writes one)."""


class RunConfig(Section):
    """All that a run depends on."""

    study: Study
    """The study's files and time."""
    bold: Bold = Bold()
    """The scans."""
    features: Features
    """The stimulus features."""
    split: Split = Split()
    """Training, validation and test TRs."""
    model: Model = Model()
    """The network."""
    loss: Loss = Loss()
    """What is minimised."""
    train: Train = Train()
    """How it is trained."""
    evaluate: Evaluate = Evaluate()
    """How it is scored."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        names = [run.name for run in self.study.runs]
        if len(set(names)) != len(names):
            raise ValueError(f"study.runs: names must differ, got {names}")
        if "{subject}" not in self.bold.files:
            raise ValueError(f"bold.files must hold {{subject}}, got {self.bold.files!r}")
        if self.split.scheme == "leave-one-run-out" and len(names) < 2:
            raise ValueError("split.scheme leave-one-run-out needs two runs; use `blocks`")
        if self.split.scheme == "runs":
            unknown = set(self.split.test_runs) - set(names)
            if unknown or not self.split.test_runs or len(self.split.test_runs) >= len(names):
                raise ValueError(
                    f"split.test_runs must name some, not all, of {names}; "
                    f"got {list(self.split.test_runs)}"
                )
        self._check_modalities()
        self._check_memory()
        return self

    def _check_modalities(self) -> None:
        films = [run.film is not None for run in self.study.runs]
        if (self.features.video or self.features.audio) and not all(films):
            raise ValueError("features.video and features.audio need a film for every run")
        sheets = [self.study.annotations.file or run.annotations for run in self.study.runs]
        if self.features.text and not all(sheets):
            raise ValueError(
                "features.text needs study.annotations.file or annotations of every run"
            )

    def _check_memory(self) -> None:
        if self.model.kind == "dense" and self.train.window_trs != 1:
            raise ValueError("model.kind dense takes single TRs: set train.window_trs to 1")
        if self.split.purge_trs < self.memory_trs:
            raise ValueError(
                f"split.purge_trs ({self.split.purge_trs}) is shorter than the model's memory "
                f"({self.memory_trs} TRs), so a training window would reach into test TRs"
            )

    @property
    def memory_trs(self) -> int:
        """Past TRs that a prediction depends on, besides its own TR."""
        if self.model.kind == "dense":
            return 0
        options = self.model.temporal
        context = sum(2 * 2**layer for layer in range(options.context_layers))
        return options.fir_trs - 1 + context
