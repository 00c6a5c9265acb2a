"""Choosing settings inside the training TRs: the best of what is predicted there, no other."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from giblet_hpc.config import io
from giblet_hpc.evaluation.prediction import load_best, predict_test
from giblet_hpc.files import read_json, write_json
from giblet_hpc.runs import checkpoints
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.splits import Fold, load_folds
from giblet_hpc.stages import choose, evaluate, preprocess, train
from giblet_hpc.stages.lesion import Wanted, lesion_run
from giblet_hpc.stages.with_checkpoint import with_checkpoint
from giblet_hpc.synthetic import StudySpec, synthesize
from giblet_hpc.training.feed import load_study
from giblet_hpc.training.predictor import make_predictor
from giblet_hpc.training.strategy import DataParallel
from giblet_hpc.training.world import World
from tests.conftest import TINY

pytestmark = pytest.mark.slow
ALONE = World(0, 0, 1, torch.device("cpu"))
CHOICES = [
    "split.inner_blocks=2", "train.choose={train.window_trs: [10, 12], model.bottleneck: [4, 8]}",
    "evaluate.samples=1", "evaluate.bootstrap_draws=0", "evaluate.chance_shifts=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """A run of four candidates, trained and evaluated."""
    folder = tmp_path_factory.mktemp("chosen")
    synthesize(folder / "data", StudySpec(runs=(150, 120), subjects=2, grid=(6, 7, 6)))
    options = [f"study.root={folder / 'data'}", f"study.store={folder / 's.zarr'}", *TINY, *CHOICES]
    config = io.load(Path(__file__).parents[2] / "configs" / "demo.yaml", options)
    paths = RunPaths(folder / "run")
    paths.create(config)
    preprocess.run(config, paths)
    # Others' checkpoints stay, to be looked at.
    with mock.patch.object(choose, "remove_others"):
        assert train.run(config, paths, ALONE)
    evaluate.run(config, paths, ALONE)
    return paths


def test_the_one_with_the_highest_mean_r_is_taken(chosen: RunPaths, tmp_path: Path) -> None:
    """Each candidate's r once more, from its checkpoints, by blocks of training TRs."""
    config, folds = chosen.load_config(), load_folds(chosen.split)
    outer, inner = folds[0], [one for one in folds if one.within == folds[0].name]
    record = read_json(choose.choice_file(chosen, outer))
    assert [one["settings"] for one in record["candidates"]] == [
        {"train.window_trs": trs, "model.bottleneck": size} for trs in (10, 12) for size in (4, 8)
    ]
    left = choose.choice_file(chosen, outer).with_suffix("")
    assert not list(left.glob("**/*.npy")), "predictions are large"
    study = load_study(config, read_json(chosen.inputs), memory=None)
    for number, candidate in enumerate(config.candidates, 1):
        made: list[np.ndarray] = []
        for one in inner:
            statistics = train.statistics_of(config, chosen, one, study=study, world=ALONE)
            predictor = make_predictor(candidate, study, statistics, DataParallel(ALONE))
            name = choose.of_candidate(one, number).name
            load_best(predictor, chosen.checkpoints(name), data=chosen.data_digest())
            folder = tmp_path / name
            folder.mkdir()
            predict_test(predictor, one.test, folder, ALONE)
            made.append(np.load(folder / "predictions.npy"))
        tested = [block for one in inner for block in one.test]
        assert {block.run for block in tested} == {"run1"}, "one mean is taken out, of the run"
        z = []
        for subject in range(2):
            bold = study.runs["run1"].bold[subject, :]
            scans = np.concatenate([bold[b.start : b.stop] for b in tested])
            own = np.concatenate([part[subject] for part in made])
            z.append(np.arctanh([np.corrcoef(a, b)[0, 1] for a, b in zip(own.T, scans.T, strict=True)]))  # fmt: skip
        expected = np.tanh(np.mean(z))
        assert record["candidates"][number - 1]["r"] == pytest.approx(expected, abs=1e-4)
    best = max(record["candidates"], key=lambda one: one["r"])
    assert record["candidates"][record["chosen"] - 1] == best


def test_the_chosen_settings_train_on_all_training_trs_and_are_scored(chosen: RunPaths) -> None:
    record = read_json(chosen.root / "choices" / "all.json")
    settings = record["candidates"][record["chosen"] - 1]["settings"]
    loaded = with_checkpoint(
        chosen.load_config(), chosen, step=None, fold="", device=torch.device("cpu")
    )
    assert loaded.predictor.config.train.window_trs == settings["train.window_trs"]
    assert loaded.predictor.config.model.bottleneck == settings["model.bottleneck"]
    assert checkpoints.committed(chosen.checkpoints())
    (fold,) = read_json(chosen.scores)
    assert fold["choice"] == record
    # The gate is chosen on predictions of the candidate that was chosen.
    named = {f"inner-{n}+choice-{record['chosen']}" for n in (1, 2)}
    assert named <= {folder.name for folder in checkpoints.folds(chosen.checkpoints())}
    assert "combined_r" in fold["rows"][0]
    text = chosen.report.read_text()
    assert f"train.window_trs={settings['train.window_trs']}" in text
    assert f"a bottleneck of {settings['model.bottleneck']} units" in text
    assert "were chosen for each fold by the mean r of 2 purged blocks" in text


def test_lesions_decode_as_the_chosen_network_does(chosen: RunPaths, tmp_path: Path) -> None:
    """Of all test TRs the figures are those of the evaluation."""
    _, record = lesion_run(
        chosen.load_config(), chosen, Wanted(regions=("video",), random=2, windows=99, shown=1),
        fold="", device="cpu", folder=tmp_path / "x", note=lambda _: None,
    )  # fmt: skip
    figures = read_json(chosen.evaluation / "decoded.json")["figures"]
    for row in record["lesions"]:
        for key, found in row["figures"].items():
            assert found["before"] == pytest.approx(figures[row["modality"]][key], rel=1e-4)
    assert record["trs"] == 120


def test_a_choice_of_other_data_does_not_count(chosen: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    (fold,) = [one for one in load_folds(chosen.split) if one.within is None]
    assert choose.is_settled(chosen, fold, ALONE)
    monkeypatch.setattr(RunPaths, "data_digest", lambda _: "other")
    assert not choose.is_settled(chosen, fold, ALONE)


def test_checkpoints_of_others_are_removed(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    inner = [Fold("inner-1", (), (), (), ""), Fold("inner-2", (), (), (), "")]
    names = [f"inner-{n}+choice-{k}{seed}" for n in (1, 2) for k in (1, 2, 12) for seed in ("", "+seed-2")]  # fmt: skip
    for name in [*names, "seed-2", "inner-1"]:
        (paths.checkpoints(name) / "step-00000001").mkdir(parents=True)
    fold = Fold("", (), (), ())
    write_json(choose.choice_file(paths, fold), {"chosen": 1})
    left = paths.root / "choices" / "all" / "inner-1+choice-2"
    left.mkdir(parents=True)
    choose.remove_others(paths, fold, inner)
    assert not left.parent.exists()
    assert {folder.name for folder in paths.checkpoints().iterdir()} == {
        "inner-1", "inner-1+choice-1", "inner-1+choice-1+seed-2", "inner-2+choice-1",
        "inner-2+choice-1+seed-2", "seed-2",
    }  # fmt: skip


def test_nothing_is_done_twice(chosen: RunPaths) -> None:
    files = sorted(chosen.root.glob("checkpoints/**/manifest.json"))
    before = {file: file.stat().st_mtime_ns for file in files}
    with mock.patch.object(choose, "remove_others"):
        assert train.run(chosen.load_config(), chosen, ALONE)
    assert {file: file.stat().st_mtime_ns for file in files} == before
