"""Hidden states of trained networks for pictures, clips, sound and words, in all layers.

Any model of transformers: what is asked of it are its hidden states. Layers that differ in width
(of networks that narrow the picture) are padded with zeros to the widest.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from giblet_hpc.errors import DataError
from giblet_hpc.files import reading

LARGEST = float(np.finfo(np.float16).max)
PICTURE_SIZE = 224
"""Of models whose processor does not say."""


class Size(NamedTuple):
    """Of a model's hidden states."""

    layers: int
    """With the embeddings."""
    width: int
    """Of the widest."""


def load(name: str, loader: str) -> Any:
    """Load a part of a model with a class of transformers, offline.

    Raises
    ------
    DataError
        When it is not on this machine, or is of another kind.
    """
    import transformers

    try:
        return getattr(transformers, loader).from_pretrained(name, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{name} cannot be loaded here as a model of transformers ({loader}): "
            f"{str(error).splitlines()[0]}",
            hint="`giblet-hpc weights CONFIG` lists what is needed and where it comes from; jobs "
            "themselves never go online",
        ) from None


class Encoder:
    """A trained network and its hidden states.

    Parameters
    ----------
    name : str
        A folder, or a name in the Hugging Face cache.
    part : str
        Of a network for several senses: the attribute that holds the one that is wanted.
    """

    def __init__(self, name: str, part: str) -> None:
        self.name = name
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = load(name, "AutoModel")
        # Of a network that writes, what reads: its encoder.
        reads = getattr(model, "get_encoder", None) if model.config.is_encoder_decoder else None
        whole = reads() if reads else model
        self.model = getattr(whole, part, whole).to(self.device).eval()

    def states(self, **inputs: torch.Tensor) -> list[torch.Tensor]:
        """Return the hidden states of every layer, (batch, tokens, width), on the device."""
        moved = {key: value.to(self.device) for key, value in inputs.items()}
        with torch.inference_mode():
            found = self.model(**moved, output_hidden_states=True).hidden_states
        if not found:
            raise DataError(f"{self.name} gives no hidden states", hint="take another model")
        # Convolutional networks have maps of channels: (batch, channels, rows, columns).
        return [s.flatten(2).transpose(1, 2) if s.ndim == 4 else s for s in found]

    def size(self, **inputs: torch.Tensor) -> Size:
        """Return how many layers there are, and how wide, from one forward pass.

        Raises
        ------
        DataError
            When the model does not take such inputs.
        """
        with reading(Path(self.name), "a model of what it is used for", hint="take another model"):
            states = self.states(**inputs)
        return Size(len(states), max(layer.shape[-1] for layer in states))


def stacked(layers: Iterable[NDArray[np.float32]], size: Size) -> NDArray[np.float16]:
    """Put layers beside each other: (n, layers, width), narrow ones padded with zeros.

    Raises
    ------
    DataError
        When a value is no number.
    """
    every = list(layers)
    out = np.zeros((len(every[0]), size.layers, size.width), dtype=np.float16)
    for number, values in enumerate(every):
        if not np.isfinite(values).all():
            raise DataError(f"layer {number} of the model gives values that are no numbers")
        out[:, number, : values.shape[1]] = np.clip(values, -LARGEST, LARGEST)
    return out


class PictureStates(Encoder):
    """An image model by frame, or a video model by clip.

    Parameters
    ----------
    name : str
    patches : str
        `mean` or `cls`.
    """

    def __init__(self, name: str, patches: str) -> None:
        super().__init__(name, "vision_model")
        self._patches = patches
        config = self.model.config
        frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None)
        self.frames = int(frames or 1)
        """Pictures of a clip; 1 of an image model."""
        self.clips = frames is not None
        settings = _processor_settings(name)
        self.height, self.width = _picture_size(config, settings)
        self._mean = np.array(settings.get("image_mean") or [0.5] * 3, dtype=np.float32)
        self._deviation = np.array(settings.get("image_std") or [0.5] * 3, dtype=np.float32)
        self._first = "pixel_values_videos" if "vjepa" in str(config.model_type) else "pixel_values"
        blank = np.zeros((1, self.frames, self.height, self.width, 3), np.uint8)
        self.shape = self.size(**self._inputs(blank))

    def _inputs(self, clips: NDArray[np.uint8]) -> dict[str, torch.Tensor]:
        """Return what the model takes of (n, frames, height, width, 3)."""
        scaled = (clips.astype(np.float32) / 255 - self._mean) / self._deviation
        channels = torch.from_numpy(np.ascontiguousarray(scaled.transpose(0, 1, 4, 2, 3)))
        return {self._first: channels if self.clips else channels[:, 0]}

    def __call__(self, clips: NDArray[np.uint8]) -> NDArray[np.float16]:
        """Return (n, layers, width) of clips (n, frames, height, width, 3)."""
        states = self.states(**self._inputs(clips))
        pooled = [s[:, 0] if self._patches == "cls" else s.mean(1) for s in states]
        return stacked((p.float().cpu().numpy() for p in pooled), self.shape)


def _processor_settings(name: str) -> dict[str, Any]:
    """Return what a model's own file says of pictures; nothing where it has none."""
    from transformers.utils import cached_file

    for file in ("preprocessor_config.json", "video_preprocessor_config.json"):
        path = cached_file(
            name, file, local_files_only=True, _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )  # fmt: skip
        if path is not None:
            found: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
            return found
    return {}


def _picture_size(config: Any, settings: dict[str, Any]) -> tuple[int, int]:
    """Return the height and width of pictures that a model takes."""
    for found in (settings.get("crop_size"), settings.get("size")):
        if isinstance(found, dict) and {"height", "width"} <= set(found):
            return int(found["height"]), int(found["width"])
    size = getattr(config, "image_size", None) or getattr(config, "crop_size", None) or PICTURE_SIZE
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)


def clips_of(
    frames: Iterator[NDArray[np.uint8]], count: int, *, steps: int, every: int, stride: int
) -> Iterator[NDArray[np.uint8]]:
    """Yield the clip of each step from a film's frames at an even rate.

    Parameters
    ----------
    frames : iterator of ndarray, shape (height, width, 3)
        Those of the first clip, then ``every`` new ones for each further step.
    count : int
        Frames of a clip.
    steps, every : int
    stride : int
        From a frame of a clip to its next.
    """
    span = (count - 1) * stride + 1
    held = list(itertools.islice(frames, span))
    yield np.stack(held[::stride])
    for _ in range(steps - 1):
        held = [*held, *itertools.islice(frames, every)][-span:]
        yield np.stack(held[::stride])


class SoundStates(Encoder):
    """A model of sound.

    Parameters
    ----------
    name : str
    seconds : float
        Of the sound that is encoded at once.

    Raises
    ------
    DataError
        When its states cannot be placed in time.
    """

    def __init__(self, name: str, seconds: float = 4.0) -> None:
        super().__init__(name, "audio_model")
        self._features = load(name, "AutoFeatureExtractor")
        self.rate = int(self._features.sampling_rate)
        """Samples a second that the model takes."""
        self.longest = float(getattr(self._features, "chunk_length", 0) or np.inf)
        """Seconds that it takes at once; it fills up shorter sound to that length."""
        self.shape = self.size(**self._inputs([np.zeros(self.rate, np.float32)]))
        self._require_time(min(seconds, self.longest))

    def _require_time(self, seconds: float) -> None:
        """Check that states follow each other in time up to the end of the sound."""
        if np.isfinite(self.longest):
            return
        half, whole = (
            self.states(**self._inputs([np.zeros(round(s * self.rate), np.float32)]))[-1].shape[1]
            for s in (seconds / 2, seconds)
        )
        if not 1.8 < whole / max(1, half) < 2.2:
            raise DataError(
                f"{self.name}: {half} states of {seconds / 2:g} s of sound, {whole} of {seconds:g} "
                "s: they do not follow each other in time, or it takes no sound so long",
                hint="lower clip_seconds, or take another model",
            )

    def _inputs(self, sounds: Sequence[NDArray[np.float32]]) -> dict[str, torch.Tensor]:
        found = self._features(list(sounds), sampling_rate=self.rate, return_tensors="pt")
        return {key: value for key, value in found.items() if key != "attention_mask"}

    def __call__(
        self, sound: NDArray[np.float32], edges: NDArray[np.float64]
    ) -> NDArray[np.float16]:
        """Return the means of hidden states between some times: (edges - 1, layers, width).

        Parameters
        ----------
        sound : ndarray, shape (samples,)
            At `rate`.
        edges : ndarray, shape (n + 1,)
            Seconds from the begin of the sound.
        """
        states = self.states(**self._inputs([sound]))
        length = self.longest if np.isfinite(self.longest) else len(sound) / self.rate
        return stacked((_between(s[0].float().cpu().numpy(), edges / length) for s in states),
                       self.shape)  # fmt: skip


def _between(states: NDArray[np.float32], edges: NDArray[np.float64]) -> NDArray[np.float32]:
    """Average states over stretches; one that holds the middle of none takes the nearest."""
    middles = (np.arange(len(states)) + 0.5) / len(states)
    out = np.empty((len(edges) - 1, states.shape[1]), dtype=np.float32)
    for number, (low, high) in enumerate(itertools.pairwise(edges)):
        inside = (middles >= low) & (middles < high)
        if not inside.any():
            inside = np.arange(len(states)) == np.abs(middles - (low + high) / 2).argmin()
        out[number] = states[inside].mean(0)
    return out


class WordStates(Encoder):
    """A language model that reads words as they come.

    Parameters
    ----------
    name : str
    context : int
        Words before a word that the model has read at least.
    """

    def __init__(self, name: str, context: int) -> None:
        super().__init__(name, "language_model")
        self._tokens = load(name, "AutoTokenizer")
        if not self._tokens.is_fast:
            raise DataError(f"{name} has no fast tokenizer", hint="take another model")
        self._context, self._stride = context, max(1, context // 4)
        self.shape = self.size(**self._read(["a"])[0])

    def _read(self, words: Sequence[str]) -> tuple[dict[str, torch.Tensor], NDArray[np.int64]]:
        """Return what the model takes of words, and the word of each token, -1 for none."""
        # Leading spaces are part of words for most language models.
        split = [f" {word}" if number else word for number, word in enumerate(words)]
        found = self._tokens(
            "".join(split), return_tensors="pt", truncation=True, return_offsets_mapping=True
        )
        ends = np.cumsum([len(word) for word in split])
        offsets = found.pop("offset_mapping")[0].numpy()
        owner = np.searchsorted(ends, offsets[:, 1] - 1, side="right")
        owner = np.where(offsets[:, 1] > offsets[:, 0], owner, -1)
        return dict(found), owner.astype(np.int64)

    def __call__(self, words: Sequence[str], *, since: int = 0) -> Iterator[NDArray[np.float16]]:
        """Yield the hidden states of some more words at a time, (words, layers, width).

        Parameters
        ----------
        words : sequence of str
        since : int
            The first word whose states are wanted.
        """
        # At the same places wherever the work begins: what was read before a word is the same.
        for start in range(since // self._stride * self._stride, len(words), self._stride):
            first = max(0, start - self._context)
            own = words[start : start + self._stride]
            inputs, owner = self._read([*words[first:start], *own])
            wanted = np.arange(start - first, start - first + len(own))
            if not np.isin(wanted, owner).all():
                raise DataError(
                    f"{self.name} cannot take {len(words[first:start]) + len(own)} words at once",
                    hint="lower features.text.language_model.context_words",
                )
            states = [s[0].float().cpu().numpy() for s in self.states(**inputs)]
            found = stacked(
                (np.stack([s[owner == word].mean(0) for word in wanted]) for s in states),
                self.shape,
            )
            yield found[max(0, since - start) :]
