"""A study of another kind, made without `synthesize`, runs by config alone."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import nibabel
import numpy as np
import pytest
import yaml

from tests.conftest import Cli

TR = 2.0
TRS = {"day": 96, "night": 80}


def write_film(
    path: Path, seconds: float, *, fps: Fraction, rate: int, layout: str, codec: str
) -> None:
    """A film whose brightness and loudness swing."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        picture.width, picture.height, picture.pix_fmt = 96, 64, "yuv420p"
        sound = container.add_stream(codec, rate=rate, layout=layout)
        frames = int(seconds * fps)
        size = sound.codec_context.frame_size or 1024
        for number in range(frames):
            level = 120 + 100 * np.sin(number / float(fps) / 5)
            pixels = np.full((64, 96, 3), int(level), np.uint8)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(picture.encode())
        channels = 2 if layout == "stereo" else 1
        for start in range(0, int(seconds * rate), size):
            time = (start + np.arange(size)) / rate
            wave = 0.4 * np.sin(2 * np.pi * 300 * time) * (1 + np.sin(time / 4)) / 2
            block = np.repeat(wave[None].astype(np.float32), channels, 0)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, start
            frame.time_base = Fraction(1, rate)
            container.mux(sound.encode(frame))
        container.mux(sound.encode())


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "lab"
    folder.mkdir()
    # The first film ends a little after its scan, the second a little before.
    write_film(folder / "day.mkv", TRS["day"] * TR + 5, fps=Fraction(24000, 1001), rate=44_100,
               layout="stereo", codec="aac")  # fmt: skip
    write_film(folder / "night.mp4", TRS["night"] * TR - 3, fps=Fraction(30000, 1001), rate=48_000,
               layout="mono", codec="aac")  # fmt: skip
    for run in TRS:
        random = np.random.default_rng(len(run))
        rows = ["onset,offset,what"]
        second = 0.0
        while second < TRS[run] * TR:
            length = random.uniform(3, 9)
            words = random.choice(["river boat", "castle knight", "dragon fire"])
            rows.append(f"{second:.2f},{second + length:.2f},{words}")
            second += length
        (folder / f"{run}.csv").write_text("\n".join(rows) + "\n")
    random = np.random.default_rng(7)
    for number, subject in enumerate(("anna", "bert")):
        (folder / subject).mkdir()
        for run, trs in TRS.items():
            shape = (6, 7, 5, trs - (4 if (number, run) == (1, "night") else 0))
            brightness = 120 + 100 * np.sin(np.arange(shape[3]) * TR / 5 - 1.2)
            scanner = 9000 + 300 * random.standard_normal(shape) + 8 * brightness
            scanner[:1] = 0
            image = nibabel.Nifti1Image(scanner.astype(np.int16), np.diag([2.5, 2.5, 2.5, 1]))
            image.header.set_zooms((2.5, 2.5, 2.5, TR))
            image.header.set_xyzt_units("mm", "sec")
            nibabel.save(image, folder / subject / f"func_{run}.nii")
    return folder


@pytest.mark.slow
def test_another_kind_of_study(cli: Cli, study: Path) -> None:
    config = {
        "study": {
            "name": "fairy",
            "root": str(study),
            "store": str(study / "store.zarr"),
            "tr": TR,
            "runs": [
                {"name": "day", "film": "day.mkv", "annotations": "day.csv"},
                {"name": "night", "film": "night.mp4", "annotations": "night.csv"},
            ],
            "annotations": {
                "text": ["what"],
                "start_seconds": "onset",
                "end_seconds": "offset",
                "start_tr": None,
                "end_tr": None,
            },
        },
        "bold": {"files": "{subject}/func_{run}.nii", "high_pass": 0.005},
        "features": {
            "video": {"height": 16, "width": 24, "frame_skip": 6},
            "audio": {"kind": "mel", "mel_bands": 8},
            "text": {"encoder": "lsa", "dimensions": 4},
        },
        "split": {
            "scheme": "blocks",
            "purge_seconds": 9,
            "test_fraction": 0.3,
            "validation_fraction": 0.25,
        },
        "model": {
            "bottleneck": 16,
            "temporal": {"frame_channels": 4, "width": 16, "rank": 4, "fir_seconds": 9},
        },
        "train": {"epochs": 30, "window_trs": 8, "batch_windows": 2, "lr": 3e-3},
        "evaluate": {"samples": 1, "ridge": {"components": 6}},
    }
    file = cli.folder / "fairy.yaml"
    file.write_text(yaml.safe_dump(config))
    done = cli("submit", "pipeline", "--config", str(file), "--wait")
    assert "run night: film 78 TRs, scans 80 TRs; cut to 78" in done.stderr
    assert "run day: film 98 TRs, scans 96 TRs; cut to 96" in done.stderr
    assert "subject bert run night: the last 2 TRs hold no data" in done.stderr
    info = json.loads(cli("store", "info", str(study / "store.zarr"), "--json").stdout)
    shapes = {row["array"]: row["shape"] for row in info}
    # round(23.976 * 2) = 48 frames a TR in both films, every 6th kept; 150 audio frames.
    assert shapes["stimulus/day/video"] == [96, 8, 16, 24, 3]
    assert shapes["stimulus/night/video"] == [78, 8, 16, 24, 3]
    assert shapes["stimulus/night/audio"] == [78, 8, 150]
    (fold,) = json.loads((cli.runs / "fairy" / "evaluation" / "scores.json").read_text())
    assert fold["rows"][0]["ridge_r"] > 0.1
    assert fold["rows"][0]["model_r"] > 0.1
