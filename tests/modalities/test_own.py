"""A lab's own features: arrays at any rate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from giblet_hpc import problems
from giblet_hpc.config import io
from giblet_hpc.errors import ConfigError, DataError
from giblet_hpc.modalities.own import rows_by_tr
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.stages import preprocess
from giblet_hpc.store import FeatureStore
from tests.conftest import TINY


@given(st.integers(1, 20), st.floats(0.2, 8), st.sampled_from([0.8, 1.0, 1.5, 2.0]))
def test_rows_count_where_they_begin(trs: int, rate: float, tr: float) -> None:
    count = max(1, int(np.ceil(trs * tr * rate)))
    values = np.arange(count, dtype=np.float32)[:, None]
    found = rows_by_tr(values, trs, rate=rate, tr=tr)
    assert found.shape == (trs, 1)
    assert (np.diff(found[:, 0]) >= 0).all()
    for row in range(trs):
        inside = [n for n in range(count) if row * tr - 1e-6 <= n / rate < (row + 1) * tr - 1e-6]
        if inside:
            assert found[row, 0] == pytest.approx(np.mean(inside), abs=1e-3)


def options(study: Path, store: Path, **own: object) -> list[str]:
    inside = ", ".join(f"{key}: {value}" for key, value in own.items())
    return [f"study.root={study}", f"study.store={store}", *TINY[3:],
            f"features={{text: {{encoder: lsa, dimensions: 6}}, arousal: {{{inside}}}}}"]  # fmt: skip


def test_a_file_for_each_run(study_folder: Path, tmp_path: Path, demo_config: str) -> None:
    values = {}
    for run, trs in (("run1", 64), ("run2", 40)):
        values[run] = np.random.default_rng(trs).standard_normal((3 * trs, 4)).astype(np.float32)
        np.save(tmp_path / f"motion_{run}.npy", values[run])
    given_ = options(
        study_folder, tmp_path / "s.zarr", files=f"'{tmp_path}/motion_{{run}}.npy'", rate=2
    )
    config = io.load(Path(demo_config), given_)
    assert config.features.modalities == ("text", "arousal")
    paths = RunPaths(tmp_path / "run")
    paths.create(config)
    preprocess.run(config, paths)
    stored = FeatureStore(tmp_path / "s.zarr").read("stimulus/run2/arousal")
    np.testing.assert_allclose(stored, values["run2"].reshape(40, 3, 4).mean(1), atol=1e-6)
    kind = modalities_of(config.features)["arousal"]
    assert (kind.feeds, kind.reconstructed) == (True, False)


def test_files_that_do_not_fit(study_folder: Path, tmp_path: Path, demo_config: str) -> None:
    given_ = options(study_folder, tmp_path / "s.zarr", files="'motion_{run}.npy'", rate=2)
    config = io.load(Path(demo_config), given_)
    found = [str(error) for error in problems.problems(config)]
    assert len(found) == 2
    assert "features.arousal.files: no file" in found[0]
    with pytest.raises(ConfigError, match="must hold {run} or {task}"):
        io.load(Path(demo_config), options(study_folder, tmp_path, files="motion.npy"))
    for run in ("run1", "run2"):
        np.save(tmp_path / f"short_{run}.npy", np.ones((30, 2), np.float32))
    short = options(
        study_folder, tmp_path / "s.zarr", files=f"'{tmp_path}/short_{{run}}.npy'", rate=2
    )
    config = io.load(Path(demo_config), short)
    paths = RunPaths(tmp_path / "run")
    paths.create(config)
    with pytest.raises(DataError, match="has 30 rows of 0.5 s; run run1 has 64 TRs of 1.5 s"):
        preprocess.run(config, paths)


def test_rows_at_another_rate_are_not_taken_for_trs(
    study_folder: Path, tmp_path: Path, demo_config: str
) -> None:
    for run, trs in (("run1", 64), ("run2", 40)):
        np.save(tmp_path / f"long_{run}.npy", np.ones((3 * trs, 2), np.float32))
    long = options(study_folder, tmp_path / "s.zarr", files=f"'{tmp_path}/long_{{run}}.npy'")
    config = io.load(Path(demo_config), long)
    paths = RunPaths(tmp_path / "run")
    paths.create(config)
    with pytest.raises(DataError, match="has 192 rows of 1.5 s; run run1 has 64 TRs") as caught:
        preprocess.run(config, paths)
    assert "features.arousal.rate" in caught.value.hint
