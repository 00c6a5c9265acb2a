"""Pretrained features from raw files to a report; interrupted, resumed, chosen anew."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from giblet_hpc.config import io
from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import ConfigError
from giblet_hpc.files import read_json
from giblet_hpc.media import film
from giblet_hpc.media.encoders import PictureStates
from giblet_hpc.modalities import hidden
from giblet_hpc.modalities.hidden import layers_at, picture_times
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.stages import evaluate, preprocess, train
from giblet_hpc.store import FeatureStore
from giblet_hpc.training.world import World
from tests import pretrained
from tests.conftest import TINY

ALONE = World(0, 0, 1, torch.device("cpu"))
TOPICS = ["tea", "kettle", "rain", "taxi", "street", "garden"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    pretrained.image_model(folder / "image")
    pretrained.video_model(folder / "video")
    pretrained.sound_model(folder / "sound")
    pretrained.language_model(folder / "language", TOPICS)
    return folder


def settings(study: Path, store: Path, models: Path) -> list[str]:
    return [
        f"study.root={study}", f"study.store={store}", *TINY,
        f"features.video.encoder={{model: {models / 'image'}, layers: [0.5, 1.0]}}",
        f"features.audio.encoder={models / 'sound'}",
        f"features.text.language_model={{model: {models / 'language'}, context_words: 16}}",
        "train.epochs=2", "evaluate.samples=1",
    ]  # fmt: skip


def of(demo_config: str, options: list[str]) -> RunConfig:
    return io.load(Path(demo_config), options)


def test_from_raw_files_to_a_report(
    study_folder: Path, tmp_path: Path, demo_config: str, models: Path
) -> None:
    config = of(demo_config, settings(study_folder, tmp_path / "s.zarr", models))
    assert config.features.modalities == (
        "video", "video_encoder", "audio", "audio_encoder", "text", "text_language_model",
    )  # fmt: skip
    kinds = modalities_of(config.features)
    assert [name for name, kind in kinds.items() if kind.feeds] == [
        "video_encoder", "audio_encoder", "text_language_model",
    ]  # fmt: skip
    paths = RunPaths(tmp_path / "run")
    paths.create(config)
    preprocess.run(config, paths)
    store = FeatureStore(tmp_path / "s.zarr")
    assert store.array("stimulus/run1/video_encoder").shape == (64, 3, 4, 16)
    train.run(config, paths, ALONE)
    evaluate.run(config, paths, ALONE)
    (fold,) = read_json(paths.scores)
    said = {row["figure"] for row in fold["reconstruction"]}
    assert any(name.startswith("video:") for name in said)
    assert not any("encoder" in name or "language_model" in name for name in said)
    page = paths.report.read_text()
    assert "hidden states of" in page
    assert "relative depths 0.5, 1" in page


def test_other_layers_need_no_other_extraction(
    study_folder: Path, tmp_path: Path, demo_config: str, models: Path
) -> None:
    options = [*settings(study_folder, tmp_path / "s.zarr", models),
               "features.video.encoder.layers=all", "features.video.encoder.pool=concat"]  # fmt: skip
    first = of(demo_config, settings(study_folder, tmp_path / "s.zarr", models))
    second = of(demo_config, options)
    assert io.preprocess_view(first) == io.preprocess_view(second)
    other = of(demo_config, [*options, "features.video.encoder.rate=1"])
    assert io.preprocess_view(first) != io.preprocess_view(other)
    rows = np.random.default_rng(0).standard_normal((5, 3, 4, 16)).astype(np.float16)
    half, all_of = (modalities_of(c.features)["video_encoder"] for c in (first, second))
    np.testing.assert_allclose(half.columns(rows)[:, 16:], rows[:, :, 3].mean(1), atol=1e-3)  # type: ignore[attr-defined]
    assert all_of.columns(rows).shape == (5, 3 * 4 * 16)  # type: ignore[attr-defined]
    seen = half.inputs(rows, half.fit([rows], None))
    np.testing.assert_allclose(seen.std(0), 1, atol=1e-3)
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-3)


SLOWLY = """
import sys, time
from pathlib import Path
from giblet_hpc.config import io
from giblet_hpc.media import encoders
from giblet_hpc.modalities import hidden
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.stages import preprocess
hidden.SHARD_TRS = 8
real = encoders.PictureStates.__call__
encoders.PictureStates.__call__ = lambda self, clips: (time.sleep(0.1), real(self, clips))[1]
paths = RunPaths(Path(sys.argv[1]))
preprocess.run(paths.load_config(), paths)
"""


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on(
    study_folder: Path, tmp_path: Path, demo_config: str, models: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(hidden, "SHARD_TRS", 8)
    encoder = f"{{model: {models / 'video'}, batch: 4}}"
    options = [f"features={{video: {{height: 18, width: 32, frame_skip: 12, encoder: {encoder}}}}}",
               f"study.root={study_folder}", *TINY[3:]]  # fmt: skip
    name = "stimulus/run1/video_encoder"

    def run_of(store: str) -> tuple[RunConfig, RunPaths]:
        config = of(demo_config, [*options, f"study.store={tmp_path / store}"])
        paths = RunPaths(tmp_path / f"run-{store}")
        paths.create(config)
        return config, paths

    config, paths = run_of("killed.zarr")
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, str(paths.root)])
    killed = FeatureStore(tmp_path / "killed.zarr")

    def written() -> int:
        rows = killed.summary() if killed.path.is_dir() else []
        return sum(row["committed"] for row in rows if row["array"] == name)

    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and written() < 2:
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.wait()
    assert 2 <= written() < 8
    computed = []
    real = PictureStates.__call__
    monkeypatch.setattr(
        PictureStates,
        "__call__",
        lambda self, clips: computed.append(len(clips)) or real(self, clips),
    )
    first = written()
    preprocess.run(config, paths)
    assert sum(computed) == 3 * (64 - 8 * first) + 3 * 40, "what is written is not computed again"
    whole, other = run_of("whole.zarr")
    preprocess.run(whole, other)
    again = FeatureStore(tmp_path / "whole.zarr").read(name)
    np.testing.assert_array_equal(killed.read(name), again)


def test_what_stands_beside_the_encoders(demo_config: str, models: Path) -> None:
    base = [f"features.video.encoder={models / 'image'}"]
    assert of(demo_config, base).features.video.encoder.model == str(models / "image")  # type: ignore[union-attr]
    both = of(demo_config, [*base, "features.video.feed=true"])
    assert modalities_of(both.features)["video"].feeds
    with pytest.raises(ConfigError, match="nothing is seen"):
        of(demo_config, ["features={video: {feed: false}}"])
    with pytest.raises(ConfigError, match="model.kind"):
        of(demo_config, [*base, "model.kind=dense", "train.window_trs=1"])


@pytest.mark.parametrize(
    ("depths", "count", "expected"),
    [((0.0, 1.0), 4, [0, 3]), ((0.5, 0.52), 13, [6]), ("all", 3, [0, 1, 2]), ((1.0,), 1, [0])],
)
def test_layers_by_relative_depth(
    depths: tuple[float, ...] | str, count: int, expected: list[int]
) -> None:
    assert layers_at(depths, count) == expected


def test_a_video_model_sees_no_frame_of_a_later_step(models: Path, demo_config: str) -> None:
    encoder = PictureStates(str(models / "video"), "mean")
    config = of(demo_config, [f"features.video.encoder={models / 'video'}"])
    options = config.features.video.encoder  # type: ignore[union-attr]
    for length, gap in ((0.5, 1.0), (2.0, 1.0), (1.5, 0.75)):
        chosen = picture_times(encoder, options, start=10.0, step=length, count=6)
        span = (encoder.frames - 1) * chosen.stride + 1
        for step in range(6):
            first = step * chosen.every
            clip = chosen.times[first : first + span : chosen.stride]
            end = 10.0 + length * (step + 1)
            assert end - length < clip.max() < end
            np.testing.assert_allclose(np.diff(clip), gap)
        assert len(chosen.times) == span + 5 * chosen.every
    image = PictureStates(str(models / "image"), "mean")
    still = picture_times(image, options, start=0.0, step=0.5, count=3)
    assert still.times.tolist() == [0.25, 0.75, 1.25]


def test_states_are_those_of_what_is_on_screen(
    study_folder: Path, tmp_path: Path, demo_config: str, models: Path
) -> None:
    """The stored states of a TR, computed again from its own frames."""
    config = of(demo_config, [
        f"study.root={study_folder}", f"study.store={tmp_path / 's.zarr'}", *TINY[3:],
        f"features={{video: {{height: 18, width: 32, frame_skip: 12, encoder: {models / 'image'}}}}}",
    ])  # fmt: skip
    paths = RunPaths(tmp_path / "run")
    paths.create(config)
    preprocess.run(config, paths)
    stored = FeatureStore(tmp_path / "s.zarr").read("stimulus/run2/video_encoder")
    encoder = PictureStates(str(models / "image"), "mean")
    times = 17 * 1.5 + (np.arange(3) + 0.5) * 0.5
    frames = film.sample_frames(study_folder / "film_2.mp4", times, height=28, width=28)
    again = encoder(np.stack([frame[None] for frame in frames]))
    np.testing.assert_allclose(stored[17], again, atol=1e-3)
