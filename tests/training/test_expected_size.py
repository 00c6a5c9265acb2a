"""Before preprocess, sizes follow from settings; afterwards they are the store's."""

from __future__ import annotations

from pathlib import Path

import av

from giblet_hpc.config import io
from giblet_hpc.files import read_json
from giblet_hpc.plans import study_size
from giblet_hpc.training.expected_size import expected_size
from tests.conftest import TINY, Cli, sets

CONFIG = Path(__file__).parents[2] / "configs" / "demo.yaml"


def test_what_is_expected_is_what_preprocess_makes(study_folder: Path, tmp_path: Path) -> None:
    settings = [f"study.root={study_folder}", f"study.store={tmp_path / 'store.zarr'}", *TINY]
    cli = Cli(tmp_path)
    cli("run", "preprocess", "one", "--config", str(CONFIG), *sets(settings))
    config = io.load(CONFIG, settings)
    stored = study_size.of_store(config, read_json(cli.runs / "one" / "inputs.json"))
    with av.open(str(study_folder / "film_1.mp4")) as film:
        fps = float(film.streams.video[0].average_rate or 0)
    expected = expected_size(config, voxels=stored.voxels, fps=fps)
    for name in ("video", "audio"):
        assert expected.rows[name] == stored.rows[name]
    assert (expected.voxels, expected.subjects) == (stored.voxels, stored.subjects)
    assert set(expected.assumed) == {"TRs a run"}
    assert stored.assumed == {}
    assert stored.bytes_in_memory == study_size.stored_bytes(
        config, read_json(cli.runs / "one" / "inputs.json")
    )


def test_numbers_of_subjects() -> None:
    for subjects, expected in (("3", 3), ("[a, b]", 2), ("all", 1)):
        config = io.load(CONFIG, ["study.root=/nowhere", f"study.subjects={subjects}"])
        size = expected_size(config)
        assert size.subjects == expected
        assert ("subjects" in size.assumed) == (subjects == "all")
