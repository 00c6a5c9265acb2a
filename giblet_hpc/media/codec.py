"""EnCodec (Défossez et al. 2022, arXiv 2210.13438), from either of its implementations."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import EncodecConfig, EncodecModel

from giblet_hpc.config.features import UNTRAINED, AudioFeatures
from giblet_hpc.errors import ConfigError, DataError
from giblet_hpc.media.sound import SAMPLE_RATE

UNTRAINED_SEED = 20171
CODEBOOK_SIZE = 1024
CODE_DIMENSIONS = 128


def codebooks(options: AudioFeatures) -> int:
    """Return how many codebooks the bit rate gives, from the codec's own config.

    Raises
    ------
    ConfigError
        When the codec does not offer the bit rate.
    DataError
        When the codec's files are not on this machine.
    """
    # The encodec package has no config file; its codec is the one of the default config.
    config = _config(UNTRAINED if options.backend == "encodec" else options.codec)
    if options.bandwidth_kbps not in config.target_bandwidths:
        raise ConfigError(
            f"features.audio.bandwidth_kbps {options.bandwidth_kbps:g}: this codec offers "
            f"{', '.join(f'{rate:g}' for rate in config.target_bandwidths)}",
        )
    if config.sampling_rate != SAMPLE_RATE:
        raise ConfigError(
            f"features.audio.codec {options.codec}: works at {config.sampling_rate} Hz; "
            f"only {SAMPLE_RATE} Hz codecs are supported",
            hint="facebook/encodec_24khz",
        )
    bits = math.log2(config.codebook_size) * config.frame_rate
    return int(options.bandwidth_kbps * 1000 / bits)


def _config(codec: str) -> Any:
    if codec == UNTRAINED:
        return EncodecConfig()
    try:
        return EncodecConfig.from_pretrained(codec, local_files_only=True)
    except OSError:
        raise _absent(codec) from None


def _absent(codec: str) -> DataError:
    return DataError(
        f"EnCodec weights not found on this machine: {codec}",
        hint=f"on a machine with internet: hf download {codec}; or set features.audio.codec "
        "to a folder; the jobs themselves never go online",
    )


def make_codec(options: AudioFeatures) -> TransformersCodec | EncodecPackage:
    """Return the EnCodec implementation that the config asks for."""
    if options.backend == "encodec":
        return EncodecPackage(options)
    return TransformersCodec(options)


class TransformersCodec:
    """EnCodec by transformers.

    Parameters
    ----------
    options : AudioFeatures
        Which weights and which bit rate.
    """

    dtype = "int16"
    ahead = 0

    def __init__(self, options: AudioFeatures) -> None:
        self.rows = codebooks(options)
        self._bandwidth = options.bandwidth_kbps
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if options.codec == UNTRAINED:
            model = untrained_codec(self.rows)
        else:
            try:
                model = EncodecModel.from_pretrained(options.codec, local_files_only=True)
            except OSError:
                raise _absent(options.codec) from None
        self.model = model.to(self._device).eval()

    @torch.inference_mode()
    def __call__(self, sound: NDArray[np.float32]) -> NDArray[np.int16]:
        """Return codes of shape (codebooks, samples / 320), each 0 to 1023."""
        values = torch.from_numpy(np.ascontiguousarray(sound))[None, None].to(self._device)
        codes = self.model.encode(values, bandwidth=self._bandwidth).audio_codes
        result: NDArray[np.int16] = codes[0, 0].to(torch.int16).cpu().numpy()
        return result

    @torch.inference_mode()
    def decode(self, codes: NDArray[np.int16]) -> NDArray[np.float32]:
        """Return the sound, (320 columns,), of codes (codebooks, columns)."""
        values = torch.from_numpy(codes.astype(np.int64))[None, None].to(self._device)
        sound: NDArray[np.float32] = self.model.decode(values, [None]).audio_values.cpu().numpy()
        return sound.ravel()

    def codebooks(self) -> NDArray[np.float32]:
        """Return the vectors that the codes stand for: (codebooks, 1024, 128)."""
        layers = self.model.quantizer.layers[: self.rows]
        return np.stack([layer.codebook.embed.cpu().numpy() for layer in layers])


class EncodecPackage:
    """EnCodec by its authors' package: the same weights, the same codes.

    Parameters
    ----------
    options : AudioFeatures
        ``codec`` is a folder that holds the package's checkpoint file.
    """

    dtype = "int16"
    ahead = 0

    def __init__(self, options: AudioFeatures) -> None:
        try:
            from encodec import EncodecModel as Reference
        except ImportError as error:
            raise ConfigError(
                f"features.audio.backend encodec: the package cannot be imported ({error})",
                hint="pip install 'giblet-hpc[encodec]', or backend: transformers",
            ) from None
        folder = Path(options.codec)
        if not folder.is_dir():
            # Without a folder the package would go online.
            raise DataError(f"features.audio.codec: no folder {folder}")
        model = Reference.encodec_model_24khz(pretrained=True, repository=folder)
        model.set_target_bandwidth(options.bandwidth_kbps)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.to(self._device).eval()
        self.rows = codebooks(options)

    @torch.inference_mode()
    def __call__(self, sound: NDArray[np.float32]) -> NDArray[np.int16]:
        """Return codes of shape (codebooks, samples / 320), each 0 to 1023."""
        values = torch.from_numpy(np.ascontiguousarray(sound))[None, None].to(self._device)
        codes = self.model.encode(values)[0][0]
        result: NDArray[np.int16] = codes[0].to(torch.int16).cpu().numpy()
        return result

    @torch.inference_mode()
    def decode(self, codes: NDArray[np.int16]) -> NDArray[np.float32]:
        """Return the sound, (320 columns,), of codes (codebooks, columns)."""
        values = torch.from_numpy(codes.astype(np.int64))[None].to(self._device)
        sound: NDArray[np.float32] = self.model.decode([(values, None)]).cpu().numpy()
        return sound.ravel()

    def codebooks(self) -> NDArray[np.float32]:
        """Return the vectors that the codes stand for: (codebooks, 1024, 128)."""
        layers = self.model.quantizer.vq.layers[: self.rows]
        return np.stack([layer._codebook.embed.cpu().numpy() for layer in layers])


def untrained_codec(used_codebooks: int) -> Any:
    """Return a codec of fixed-seed random weights, for tests and demos.

    A codec built from its config alone has all-zero codebooks and gives one code for any sound.
    Here each codebook's vectors are what the random encoder makes of fixed-seed noises and
    tones, less what the codebooks before it explain.

    Parameters
    ----------
    used_codebooks : int
        How many codebooks to fill; the rest stay zero.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(UNTRAINED_SEED)
        model = EncodecModel(EncodecConfig()).eval()
        with torch.inference_mode():
            residual = _standardise_output(model.encoder, _calibration_sound()).T  # (frames, 128)
            for layer in model.quantizer.layers[:used_codebooks]:
                chosen = torch.randperm(len(residual))[:CODEBOOK_SIZE]
                layer.codebook.embed.copy_(residual[chosen])
                distance = torch.cdist(residual, residual[chosen])
                # A chosen vector explains itself exactly; its residual is to its neighbour.
                distance[chosen, torch.arange(CODEBOOK_SIZE)] = torch.inf
                residual = residual - residual[chosen][distance.argmin(dim=1)]
    return model


def _standardise_output(encoder: Any, sound: torch.Tensor) -> torch.Tensor:
    """Scale the last layer to mean 0 and standard deviation 1, and return its new output.

    A random encoder's output hardly varies; nearest neighbours would be a matter of rounding.
    """
    before = encoder(sound[None, None])[0]
    scale = 1.0 / before.std(dim=1).mean()
    last = encoder.layers[-1].conv
    last.parametrizations.weight.original0.mul_(scale)
    last.bias.sub_(before.mean(dim=1)).mul_(scale)
    result: torch.Tensor = encoder(sound[None, None])[0]
    return result


def _calibration_sound() -> torch.Tensor:
    """Sixty fixed-seed half seconds of tones and noises at many levels: (samples,)."""
    generator = torch.Generator().manual_seed(UNTRAINED_SEED)
    length = SAMPLE_RATE // 2
    time = torch.arange(length) / SAMPLE_RATE
    pieces = []
    for _ in range(60):
        level, share, pitch = torch.rand(3, generator=generator)
        tone = torch.sin(2 * math.pi * 80 * 2 ** (6 * pitch) * time)
        noise = torch.randn(length, generator=generator) / 3
        pieces.append(0.8 * level**2 * (share * tone + (1 - share) * noise))
    return torch.cat(pieces)
