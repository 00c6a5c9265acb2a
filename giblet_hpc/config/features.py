"""The stimulus features: a section for each modality."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from giblet_hpc.config.section import Count, Positive, Section, Weight

UNTRAINED = "untrained"
"""A codec with fixed-seed weights, in place of trained ones."""
FROM_FILMS = ("picture", "sound")
"""What a run's film may be needed for."""
LSA = "lsa"
"""Word counts, in place of an encoder's embeddings."""


class Modality(Section):
    """A modality's own section, and what is asked of a modality before any work."""

    needs: ClassVar[Literal["picture", "sound", "annotations"]]
    """What each run has to have for it."""

    @property
    def weights(self) -> str:
        """Trained weights that preprocess loads: a folder or a name; empty for none."""
        return ""

    @property
    def wants_gpu(self) -> bool:
        """Whether a GPU makes its part of preprocess much faster."""
        return False


class VideoFeatures(Modality):
    """Frames of the film, as pixels."""

    needs = "picture"

    height: Count = 90
    """Rows of a frame after area-averaging."""
    width: Count = 160
    """Columns of a frame after area-averaging."""
    fps: Positive | None = None
    """Frames per second to sample, by timestamp. Null: the rate of the first run's film."""
    frame_skip: Count = 1
    """Keep every k-th frame of a TR: ceil(round(fps * TR) / k) frames."""


class AudioFeatures(Modality):
    """The sound, as EnCodec codes or as a log-mel spectrogram."""

    needs = "sound"
    after_preprocess = frozenset({"loss_frames"})

    kind: Literal["codes", "mel"] = "codes"
    """`codes`: discrete EnCodec codes at 75 frames a second. `mel`: log-mel energies."""
    codec: str = "facebook/encodec_24khz"
    """EnCodec weights: a folder, a name in the Hugging Face cache, or `untrained` for a
    fixed-seed codec without training (for tests and demos: its codes mean little)."""
    weights_sha256: str | None = None
    """Digest that the codec's files must have; preprocess refuses others, and prints theirs."""
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
    loss_frames: Count = 16
    """Audio frames of a TR on which the reconstruction of codes is trained at a step, drawn anew
    each step. Validation uses evenly spaced ones."""

    @property
    def weights(self) -> str:
        """The codec, where codes are wanted of a trained one."""
        trained = self.kind == "codes" and self.codec != UNTRAINED
        return self.codec if trained else ""

    @property
    def wants_gpu(self) -> bool:
        """The codec is a network."""
        return self.kind == "codes"

    @model_validator(mode="after")
    def _check_backend(self) -> AudioFeatures:
        if self.backend == "encodec" and not Path(self.codec).is_absolute():
            raise ValueError(
                "backend: encodec needs codec to be the absolute path of a folder with the "
                "package's checkpoint"
            )
        return self


class TextFeatures(Modality):
    """The words of the annotated segments."""

    needs = "annotations"
    after_preprocess = frozenset({"dimensions"})

    encoder: str = "BAAI/bge-large-en-v1.5"
    """A transformers encoder (folder, or a name in the Hugging Face cache), or `lsa`: TF-IDF and
    truncated SVD, fitted on the training TRs of each fold."""
    weights_sha256: str | None = None
    """Digest that the encoder's files must have; preprocess refuses others, and prints theirs."""
    pooling: Literal["auto", "cls", "mean"] = "auto"
    """How token vectors become one. `auto` reads the model's own pooling file."""
    segments: Count = 3
    """Overlapping segments whose embeddings are concatenated at a TR (not for `lsa`, which sums
    the words of all of them)."""
    dimensions: Count = 100
    """Components of `lsa`."""
    forward_fill: bool = True
    """TRs without a segment repeat the one before."""

    @property
    def weights(self) -> str:
        """The encoder, where words are embedded."""
        return "" if self.encoder == LSA else self.encoder

    @property
    def wants_gpu(self) -> bool:
        """Encoders are networks."""
        return self.encoder != LSA


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
            known = ", ".join(type(self).model_fields)
            raise ValueError(f"at least one of {known} must be given")
        return self

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities in use, in a fixed order."""
        return tuple(self.sections)

    @property
    def sections(self) -> dict[str, Modality]:
        """The sections of the modalities in use, by name."""
        every = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: section for name, section in every.items() if section is not None}
