"""What evaluation keeps, and what it says of the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from giblet_hpc.config import io
from giblet_hpc.errors import GibletError
from giblet_hpc.evaluation import bootstrap, tables
from giblet_hpc.files import read_json, write_json
from giblet_hpc.runs import checkpoints
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.splits import load_folds
from giblet_hpc.stages import evaluate, preprocess, train
from giblet_hpc.stages.lesion import Wanted, lesion_run
from giblet_hpc.synthetic import StudySpec, synthesize
from giblet_hpc.training.world import World
from tests.conftest import TINY, Cli, sets

ALONE = World(0, 0, 1, torch.device("cpu"))


@pytest.mark.parametrize(
    ("model", "ridge", "said"),
    [
        (0.2, 0.1, "The network (mean r 0.200 [0.100, 0.300]) is better than ridge (0.100 ["),
        (0.1, 0.2, "Ridge (mean r 0.200 [0.100, 0.300]) is better than the network"),
        (0.2, 0.19, "cannot be told apart: their difference is +0.010 [-0.040, +0.060]"),
    ],
)
def test_the_verdict_names_the_better_one(model: float, ridge: float, said: str) -> None:
    difference = [model - ridge - 0.05, model - ridge + 0.05]
    row = {
        "model_r": model, "model_r_interval": [model - 0.1, model + 0.1],
        "ridge_r": ridge, "ridge_r_interval": [ridge - 0.1, ridge + 0.1],
        "difference": model - ridge, "difference_interval": difference,
        "verdict": bootstrap.verdict(difference),
    }  # fmt: skip
    assert said in tables.in_words(row)


def test_without_intervals_there_is_no_verdict() -> None:
    assert "too few test TRs" in tables.in_words({"model_r": 0.2, "ridge_r": 0.1})


def test_products_of_another_checkpoint_or_config_are_discarded(
    tmp_path: Path, demo_config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, paths = io.load(Path(demo_config)), RunPaths(tmp_path / "run")
    paths.create(config)
    write_json(paths.inputs, {"arrays": {}})
    files = {"state.pt": "a"}
    monkeypatch.setattr(checkpoints, "manifest_of", lambda best: {"files": files})
    folder = tmp_path / "evaluation"

    def kept(of: object = config) -> bool:
        folder.mkdir(exist_ok=True)
        (folder / "predictions.npy").touch()
        evaluate._discard_others(folder, of, paths, [tmp_path])  # type: ignore[arg-type]
        return (folder / "predictions.npy").is_file()

    assert not kept(), "nothing says what they were made from"
    assert kept()
    files["state.pt"] = "b"
    assert not kept()
    assert kept()
    assert not kept(io.load(Path(demo_config), ["evaluate.ridge.components=5"]))
    assert (folder / "made_from.json").is_file()


SEVERAL = [
    "evaluate.ridge={components: 8, smooth_seconds: [4], penalties: voxel, bands: one, draws: 4}",
    "evaluate.samples=1", "evaluate.bootstrap_seconds=6", "split.inner_blocks=2",
    "train.seeds=2", "train.epochs=2", "evaluate.calibration_minutes=[2, 99]",
    "evaluate.random_trs=true",
]  # fmt: skip


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """A run with two seeds and two inner blocks, evaluated."""
    folder = tmp_path_factory.mktemp("scored")
    synthesize(folder / "data", StudySpec(runs=(150, 120), subjects=2, grid=(6, 7, 6)))
    options = [f"study.root={folder / 'data'}", f"study.store={folder / 's.zarr'}", *TINY, *SEVERAL]
    config = io.load(Path(__file__).parents[2] / "configs" / "demo.yaml", options)
    paths = RunPaths(folder / "run")
    paths.create(config)
    preprocess.run(config, paths)
    train.run(config, paths, ALONE)
    evaluate.run(config, paths, ALONE)
    return paths


@pytest.mark.slow
def test_predictions_are_the_mean_of_the_seeds(scored: RunPaths) -> None:
    names = {"", "inner-1", "inner-2", "seed-2", "inner-1+seed-2", "inner-2+seed-2"}
    for name in names:
        assert (scored.checkpoints(name) / "best").is_file()
    seeds = [np.load(scored.evaluation / f"seed-{n}" / "predictions.npy") for n in (1, 2)]
    assert np.abs(seeds[0] - seeds[1]).max() > 1e-3
    made = np.load(scored.evaluation / "predictions.npy")
    np.testing.assert_allclose(made, np.mean(seeds, axis=0), atol=1e-6)
    (fold,) = read_json(scored.scores)
    assert "Its 2 seeds alone reach" in fold["verdict"]


@pytest.mark.slow
def test_the_gate_comes_from_training_trs_alone(scored: RunPaths) -> None:
    (fold,) = read_json(scored.scores)
    assert set(fold["gate"]) == {"video", "audio", "text", "mixed", "none"}
    assert all(0 <= value <= 1 for value in fold["gate"].values())
    both = np.load(scored.evaluation / "combined.npy")
    assert both.shape == np.load(scored.evaluation / "ridge.npy").shape
    inner = [one for one in load_folds(scored.split) if one.within == ""]
    for one in inner:
        trs = sum(block.trs for block in one.test)
        for name in ("predictions", "ridge"):
            assert np.load(scored.evaluation / one.name / f"{name}.npy").shape[1] == trs
    assert not (scored.evaluation / "validation").exists()


@pytest.mark.slow
def test_every_score_has_its_controls(scored: RunPaths) -> None:
    (fold,) = read_json(scored.scores)
    for row in fold["rows"]:
        for key in ("time_r", "previous_r", "model_p", "ridge_chance", "combined_significant",
                    "unique-text", "product-video", "gain", "random_r"):  # fmt: skip
            assert np.isfinite(row[key]), key
        assert {"unique-audio_interval", "time_r_interval", "gain_interval"} <= set(row)
    page = scored.report.read_text()
    for heading in ("Against chance, and controls", "What each modality carries, in ridge"):
        assert heading in page
    assert {
        "unique-text.nii.gz",
        "product-video.nii.gz",
        "combined_r.nii.gz",
        "model_p.nii.gz",
    } <= {file.name for file in scored.evaluation.iterdir()}
    assert not list(scored.evaluation.glob("without-*.npy"))


@pytest.mark.slow
def test_reconstructions_are_beside_what_scans_say_and_what_knows_nothing(
    scored: RunPaths,
) -> None:
    (fold,) = read_json(scored.scores)
    rows = {row["figure"]: row for row in fold["reconstruction"]}
    assert {"video: error (1 = training mean)", "video: structural similarity (1 = the same)",
            "audio: error (1 = training mean)", "text: error (1 = training mean)"} <= set(rows)  # fmt: skip
    for row in rows.values():
        assert all(np.isfinite(row[kind]) for kind in ("model", "scans", "mean", "previous"))
    for found in (*fold["matching"].values(), fold["decoded"]):
        assert found["segments"] >= 2
        assert 0 <= found["top1"] <= found["top5"] <= 1
    assert set(fold["matching"]) == {"model", "ridge", "combined"}
    assert [row["minutes"] for row in fold["calibration"]] == [0, 2]
    page = scored.report.read_text()
    assert "A new subject, by minutes of its scans" in page
    assert "Which moment was it?" in page
    assert "decoded from scans" in page


def lesion(paths: RunPaths, folder: Path, wanted: Wanted) -> list[dict[str, Any]]:
    _, record = lesion_run(
        paths.load_config(), paths, wanted, fold="", device="cpu", folder=folder,
        note=lambda _: None,
    )  # fmt: skip
    assert read_json(folder / "lesions.json") == record
    return list(record["lesions"])


@pytest.mark.slow
def test_regions_voxels_and_units_are_silenced(scored: RunPaths, tmp_path: Path) -> None:
    regions = lesion(scored, tmp_path / "r", Wanted(random=9, windows=2))
    assert {row["lesion"] for row in regions} == {"video", "audio", "text", "mixed", "none"}
    assert {row["modality"] for row in regions} == {"video", "audio", "text"}
    assert all(0.1 <= row["moved_p"] <= 1 for row in regions)
    words = read_json(tmp_path / "r" / "lesions.json")["samples"][0]["words"]
    assert set(words) == {"shown", "decoded", "video", "audio", "text", "mixed", "none"}
    (said,) = words["shown"]
    assert "looks" in said or len(said.split()) > 2
    # The same voxels, as a file.
    labels = nibabel.load(scored.load_config().study.root / "regions.nii.gz")
    names = {"video": 1}
    image = nibabel.Nifti1Image(
        (np.asarray(labels.dataobj) == names["video"]).astype(np.uint8), labels.affine
    )
    nibabel.save(image, tmp_path / "video region.nii.gz")
    wanted = Wanted(voxels=tmp_path / "video region.nii.gz", random=9, windows=2, shown=0)
    by_file = lesion(scored, tmp_path / "v", wanted)
    own = [row for row in regions if row["lesion"] == "video"]
    assert [row["moved"] for row in by_file] == pytest.approx([row["moved"] for row in own])
    units = lesion(scored, tmp_path / "u", Wanted(units="0,3-5", random=3, windows=2, shown=1))
    assert {row["size"] for row in units} == {4}
    assert {"scans of all voxels", "scans of none", "video"} <= {row["modality"] for row in units}


@pytest.mark.slow
def test_lesions_by_the_command_line(scored: RunPaths, cli: Cli) -> None:
    cli.runs = scored.root.parent
    shown = cli("lesion", "run", "--region", "video", "--random", "3", "--num-samples", "1")
    assert "silent  size  of" in shown.stdout
    assert "lesions/video/index.html" in shown.stdout
    assert "video is done" in shown.stderr
    said = cli("lesion", "run", "--units", "0-3", "--random", "0", "--shown", "0", "--json").stdout
    found = json.loads(said)
    assert found["of"] == "units"
    assert {row["moved_p"] for row in found["lesions"]} == {None}
    refused = cli("lesion", "run", "--units", "0", "--region", "video", check=False)
    assert refused.returncode == 2
    assert "one of --region, --voxels and --units" in refused.stderr


@pytest.mark.slow
def test_what_cannot_be_silenced_is_refused(scored: RunPaths, tmp_path: Path) -> None:
    def refused(wanted: Wanted) -> str:
        with pytest.raises(GibletError) as caught:
            lesion(scored, tmp_path / "x", wanted)
        return f"{caught.value} {caught.value.hint}"

    said = refused(Wanted(regions=("left",)))
    assert "there is no region left" in said
    assert "there are: " in said
    assert "there are units 0 to 15" in refused(Wanted(units="3,16"))
    assert "is no number" in refused(Wanted(units="a"))
    assert "16 of 16 cannot be silent" in refused(Wanted(units="0-15"))
    with pytest.raises(GibletError, match="there is no fold second"):
        lesion_run(
            scored.load_config(), scored, Wanted(), fold="second", device="cpu", folder=None,
            note=lambda _: None,
        )  # fmt: skip
    with pytest.raises(GibletError, match="nowhere"):
        lesion(scored, tmp_path / "x", Wanted(voxels=tmp_path / "nowhere.nii.gz"))
    paths = RunPaths(tmp_path / "other")
    paths.create(scored.load_config())
    with pytest.raises(GibletError, match="has no decoder"):
        lesion(paths, tmp_path / "x", Wanted())
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_an_interrupted_evaluation_makes_what_is_missing(scored: RunPaths) -> None:
    files = ["ridge.npy", "time.npy", "inner-1/ridge.npy", "seed-2/predictions.npy"]
    before = {name: (scored.evaluation / name).stat().st_mtime_ns for name in files}
    scores = scored.scores.read_bytes()
    for name in ("fold.json", "combined.npy", "inner-2/predictions.npy"):
        (scored.evaluation / name).unlink()
    evaluate.run(scored.load_config(), scored, ALONE)
    assert {name: (scored.evaluation / name).stat().st_mtime_ns for name in files} == before
    assert scored.scores.read_bytes() == scores


@pytest.mark.slow
def test_ridge_alone_trains_nothing_and_takes_a_network_later(
    cli: Cli, tiny_options: list[str], demo_config: str
) -> None:
    options = ["--name", "r", "--config", demo_config, *sets(tiny_options), "--wait"]
    said = cli("submit", "pipeline", *options, "--baseline-only").stderr
    assert "submitted preprocess, evaluate of run r" in said
    status = json.loads(cli("status", "r", "--json").stdout)
    assert status["stages"]["train"]["reason"] == "no network is asked for"
    assert status["next"] == ""
    run = cli.runs / "r"
    (fold,) = json.loads((run / "evaluation" / "scores.json").read_text())
    assert fold["verdict"].startswith("Ridge alone: mean r ")
    assert "model_r" not in fold["rows"][0]
    assert not (run / "checkpoints").exists()
    assert "Ridge alone" in (run / "report.html").read_text()
    assert "ridge r" in cli("scores", "r").stdout
    refused = cli("submit", "train", "--name", "r", check=False).stderr
    assert "evaluate.network is false: there is no network to train" in refused
    said = cli("submit", "pipeline", *options).stderr
    assert "submitted train, evaluate of run r" in said
    (fold,) = json.loads((run / "evaluation" / "scores.json").read_text())
    assert "model_r" in fold["rows"][0]
