"""The stimulus features: a section for each modality."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import ConfigDict, model_validator

from giblet_hpc.config.section import Count, Name, Positive, Section, Share, Weight
from giblet_hpc.config.study import ScanRun, Study

UNTRAINED = "untrained"
"""A codec with fixed-seed weights, in place of trained ones."""
FROM_FILMS = ("picture", "sound")
"""What a run's film may be needed for."""
LSA = "lsa"
"""Word counts, in place of an encoder's embeddings."""


class Modality(Section):
    """A modality's own section, and what is asked of a modality before any work."""

    after_preprocess = frozenset({"feed", "reconstruct"})
    needs: ClassVar[Literal["picture", "sound", "annotations", ""]]
    """What each run has to have for it."""
    brings: ClassVar[tuple[str, ...]] = ()
    """Fields that are sections of modalities of their own."""

    feed: bool | None = None
    """Whether the network and the linear baseline see it. Null: yes, unless an encoder of the same
    section stands in for it."""
    reconstruct: bool = True
    """Whether the network reconstructs it."""

    @property
    def feeds(self) -> bool:
        """Whether the network and the linear baseline see it."""
        return not self.derived if self.feed is None else self.feed

    @property
    def derived(self) -> dict[str, Modality]:
        """Sections of modalities that this one brings along, by what is added to its name."""
        own = {name: getattr(self, name) for name in self.brings}
        return {name: section for name, section in own.items() if section is not None}

    def paths(self, study: Study, run: ScanRun) -> list[Path]:
        """Return files of a run that are needed besides its film and its annotations."""
        del study, run
        return []

    @property
    def weights(self) -> str:
        """Trained weights that preprocess loads: a folder or a name; empty for none."""
        return ""

    @property
    def wants_gpu(self) -> bool:
        """Whether a GPU makes its part of preprocess much faster."""
        return False


class Pretrained(Modality):
    """Hidden states of a trained network, which the network and the linear baseline see.

    All layers are stored; which of them are used is chosen at training.
    """

    after_preprocess = frozenset({"feed", "reconstruct", "layers", "pool"})

    reconstruct: bool = False
    """Whether the network reconstructs the chosen layers."""
    model: str
    """A model of transformers: a folder, or a name in the Hugging Face cache."""
    weights_sha256: str | None = None
    """Digest that the model's files must have; preprocess refuses others, and prints theirs."""
    layers: tuple[Share, ...] | Literal["all"] = (0.5, 0.75, 1.0)
    """Which layers are used, by their relative depth from 0, the embeddings, to 1, the last."""
    pool: Literal["mean", "concat"] = "mean"
    """How the steps of a TR become one vector."""
    batch: Count = 16
    """Pictures, clips or stretches of sound that are computed at once."""

    @model_validator(mode="before")
    @classmethod
    def _a_name_is_enough(cls, given: object) -> object:
        return {"model": given} if isinstance(given, str) else given

    @property
    def weights(self) -> str:
        """The model."""
        return self.model

    @property
    def wants_gpu(self) -> bool:
        """Models are networks."""
        return True


class PictureEncoder(Pretrained):
    """An image model by frame, or a video model by clip."""

    needs = "picture"

    rate: Positive = 2.0
    """Steps a second: round(rate * TR) of them in a TR, at least one."""
    clip_seconds: Positive = 4.0
    """Of a video model: how much film before the end of a step it sees."""
    patches: Literal["mean", "cls"] = "mean"
    """How the patches of a picture become one vector: their mean, or the first token."""


class SoundEncoder(Pretrained):
    """A model of sound."""

    needs = "sound"

    rate: Positive = 2.0
    """Steps a second: round(rate * TR) of them in a TR, at least one."""
    clip_seconds: Positive = 30.0
    """Sound that is encoded at once; half of it was heard before, as context."""


class LanguageModel(Pretrained):
    """A language model that reads the words as they come."""

    needs = "annotations"

    context_words: Count = 128
    """Words before a word that the model has read at least, where there are so many."""


class VideoFeatures(Modality):
    """Frames of the film, as pixels."""

    needs = "picture"
    brings = ("encoder",)

    encoder: PictureEncoder | None = None
    """A trained model whose hidden states are seen in place of the pixels, which are then only
    reconstructed. Null: none."""
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
    after_preprocess = frozenset({"feed", "reconstruct", "loss_frames"})
    brings = ("encoder",)

    encoder: SoundEncoder | None = None
    """A trained model whose hidden states are seen in place of codes or energies, which are then
    only reconstructed. Null: none."""
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
    after_preprocess = frozenset({"feed", "reconstruct", "dimensions"})
    brings = ("language_model",)

    language_model: LanguageModel | None = None
    """A trained model whose hidden states, word by word, are seen in place of the segments'
    embeddings, which are then only reconstructed. Null: none."""
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


class MotionFeatures(Modality):
    """Motion energy of the picture, by pymoten's default pyramid of Gabor filters."""

    needs = "picture"

    height: Count = 36
    """Rows of a frame that is filtered."""
    width: Count = 64
    """Columns of a frame that is filtered."""
    fps: Count = 12
    """Frames a second; filters see motion of up to a third of it in cycles a second."""
    reconstruct: bool = False
    """Whether the network reconstructs it."""


class OwnFeatures(Modality):
    """A lab's own features, from arrays that another program has made."""

    needs = ""

    files: str
    """Path pattern of a file for each run, with {run} or {task}, absolute or relative to
    study.root: .npy, .npz, .h5, .tsv or .csv of rows in time by columns."""
    rate: Positive | None = None
    """Rows a second, averaged over TRs. Null: a row is a TR."""
    reconstruct: bool = False
    """Whether the network reconstructs it."""

    @model_validator(mode="after")
    def _a_file_a_run(self) -> OwnFeatures:
        if "{run}" not in self.files and "{task}" not in self.files:
            raise ValueError(f"files must hold {{run}} or {{task}}, got {self.files!r}")
        return self

    def paths(self, study: Study, run: ScanRun) -> list[Path]:
        """Return the run's file."""
        text = self.files
        for name, value in run.fields.items():
            text = text.replace(f"{{{name}}}", value)
        return [study.root / text]


class Features(Section):
    """Which modalities are used: any non-empty subset; others are a lab's own files."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[Name, OwnFeatures]

    video: VideoFeatures | None = None
    """Null: no video."""
    audio: AudioFeatures | None = None
    """Null: no audio."""
    text: TextFeatures | None = None
    """Null: no text."""
    motion: MotionFeatures | None = None
    """Null: no motion energy."""

    @model_validator(mode="after")
    def _some_modality(self) -> Self:
        if not self.modalities:
            known = ", ".join(type(self).model_fields)
            raise ValueError(f"at least one of {known} must be given")
        if not any(section.feeds for section in self.sections.values()):
            raise ValueError("nothing is seen: `feed` is false for all features")
        return self

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities in use, in a fixed order."""
        return tuple(self.sections)

    @property
    def sections(self) -> dict[str, Modality]:
        """The sections of the modalities in use, by name."""
        every = {name: getattr(self, name) for name in type(self).model_fields}
        every |= self.__pydantic_extra__ or {}
        found: dict[str, Modality] = {}
        for name, section in every.items():
            if section is not None:
                found[name] = section
                found |= {f"{name}_{more}": own for more, own in section.derived.items()}
        return found
