"""Share of EnCodec codes that differ between encoding in chunks and in one pass.

    python benchmarks/codec_chunks.py FILM [--codec facebook/encodec_24khz] [--seconds 120]

The codec has an LSTM, so a chunk's codes depend on what came before it. Prints the share for
several lengths of preceding sound.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from giblet_hpc.config.features import UNTRAINED, AudioFeatures
from giblet_hpc.media import codec
from giblet_hpc.media import sound as audio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("film", type=Path)
    parser.add_argument("--codec", default=UNTRAINED)
    parser.add_argument("--seconds", type=float, default=120.0)
    arguments = parser.parse_args()
    encoder = codec.make_codec(AudioFeatures(codec=arguments.codec))
    span = {"start": 0.0, "seconds": arguments.seconds}
    span["ahead"] = encoder.ahead
    ((sound, _, size),) = audio.sound_chunks(
        arguments.film, chunk=arguments.seconds, context=0.0, **span
    )
    whole = encoder(sound)[:, : size // audio.HOP]
    shares = {}
    for context in (0.0, 0.5, 1.0, 2.0, 4.0):
        parts = [
            encoder(chunk)[:, skip // audio.HOP :][:, : size // audio.HOP]
            for chunk, skip, size in audio.sound_chunks(
                arguments.film, chunk=30.0, context=context, **span
            )
        ]
        shares[context] = float((np.concatenate(parts, axis=1) != whole).mean())
    sys.stdout.write(json.dumps({"codec": arguments.codec, "differing": shares}) + "\n")


if __name__ == "__main__":
    main()
