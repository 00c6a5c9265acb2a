"""A modality that the package does not know: loudness of the sound, all of it in this file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from giblet_hpc.arrays import ArraySpec
from giblet_hpc.config import io
from giblet_hpc.config.features import Features
from giblet_hpc.config.features import Modality as Section
from giblet_hpc.config.model import TemporalModel
from giblet_hpc.config.run import RunConfig, add_section
from giblet_hpc.config.study import ScanRun
from giblet_hpc.digests import Digests, code_digest
from giblet_hpc.errors import ConfigError
from giblet_hpc.media import sound
from giblet_hpc.modalities import registry
from giblet_hpc.modalities.base import Modality, Note
from giblet_hpc.modalities.rows import film_inputs
from giblet_hpc.modalities.vectors import draw_vectors
from giblet_hpc.models.vectors import VectorDecoder, VectorEncoder
from giblet_hpc.runs.paths import STAGES, RunPaths
from giblet_hpc.stages.__main__ import run_stage
from giblet_hpc.store import FeatureStore
from giblet_hpc.survey import Survey


class LoudnessFeatures(Section):
    """How loud the sound is."""

    needs = "picture"

    parts: int = 4
    """Parts of a TR."""


class Loudness(Modality):
    """Rows of root mean squares, (parts,) float32."""

    def expected_shape(self, *, tr: float, fps: float) -> tuple[int, ...]:
        return (self.options.parts,)

    def array(self, survey: Survey, run: ScanRun, digests: Digests) -> ArraySpec:
        inputs = {
            **film_inputs(survey, run, digests),
            f"features.{self.name}": io.plain(self.options),
            "code": code_digest(sound, Loudness.write),
        }
        size = (survey.lengths[run.name], self.options.parts)
        return ArraySpec(self.array_name(run.name), size, "float32", inputs)

    def write(
        self, survey: Survey, run: ScanRun, *, spec: ArraySpec, store: FeatureStore, note: Note
    ) -> None:
        study, (trs, parts) = survey.config.study, spec.shape
        chunks = sound.sound_chunks(
            study.root / str(run.film), start=run.film_start, seconds=trs * study.tr,
            chunk=study.tr, context=0, ahead=0,
        )  # fmt: skip
        heard = [np.array_split(samples, parts) for samples, _, _ in chunks]
        rows = [[np.sqrt(np.mean(part**2)) for part in row] for row in heard[:trs]]
        store.write(spec, np.array(rows, dtype=np.float32))
        note()

    def encoder(self, options: TemporalModel) -> nn.Module:
        return VectorEncoder(
            self.estimate("mean"), float(self.estimates["variance"]), options.width
        )

    def decoder(self, options: TemporalModel, bottleneck: int) -> nn.Module:
        return VectorDecoder(bottleneck, self.estimate("mean"))

    def baseline_features(
        self, inputs: NDArray[Any], shared: NDArray[Any] | None
    ) -> NDArray[np.float32]:
        return np.asarray(inputs, dtype=np.float32)

    def draw(
        self,
        axes: Sequence[Any],
        shown: torch.Tensor,
        predicted: torch.Tensor,
        *,
        positions: torch.Tensor | None,
    ) -> None:
        draw_vectors(axes[0], shown, predicted, title=self.name)

    def remarks(self) -> list[str]:
        return ["Loudness is the root mean square of the sound."]


@pytest.fixture
def loudness() -> Iterator[None]:
    """Add the modality, and take it away again."""
    registry.register("loudness", Loudness)
    add_section("loudness", LoudnessFeatures)
    yield
    del registry._registered["loudness"]
    del Features.__pydantic_fields__["loudness"]
    for model in (Features, RunConfig):
        model.model_rebuild(force=True)


def settings(study: Path, store: Path) -> list[str]:
    return [
        f"study.root={study}", f"study.store={store}",
        "features={loudness: {parts: 3}, text: {encoder: lsa, dimensions: 6}}",
        "model={kind: temporal, bottleneck: 16,"
        " temporal: {frame_channels: 4, width: 16, code_width: 8, rank: 6, subject_rank: 1, fir_seconds: 9}}",
        "loss.modality_weights={loudness: 2.0}",
        "train={epochs: 4, window_trs: 8, batch_windows: 2, log_every: 2}",
        "split.purge_seconds=9", "split.validation_fraction=0.25",
        "evaluate={ridge: {components: 8}, samples: 1}",
    ]  # fmt: skip


def test_from_raw_files_to_a_report_that_names_it(
    loudness: None, study_folder: Path, tmp_path: Path, demo_config: str
) -> None:
    config = io.load(Path(demo_config), settings(study_folder, tmp_path / "s.zarr"))
    paths = RunPaths(tmp_path / "loud")
    paths.create(config)
    for stage in STAGES:
        assert run_stage(stage, paths, rank=0, part="", rebuild=False)
    rows = FeatureStore(tmp_path / "s.zarr").read("stimulus/run1/loudness")
    assert rows.shape == (64, 3) and rows.std() > 0
    page = paths.report.read_text()
    assert "loudness" in page
    assert "Loudness is the root mean square of the sound." in page
    found = json.loads((paths.evaluation / "reconstruction.json").read_text())
    assert "loudness" in json.dumps(found)
    figures = [json.loads(line) for line in paths.metrics().read_text().splitlines()]
    assert any("loss/loudness" in row for row in figures)


def test_its_section_is_checked_like_any_other(loudness: None, demo_config: str) -> None:
    with pytest.raises(ConfigError, match="did you mean `parts`"):
        io.load(Path(demo_config), ["features.loudness={part: 3}"])
    with pytest.raises(ConfigError, match="modality_weights"):
        io.load(Path(demo_config), ["loss.modality_weights={smell: 1}"])
