from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from giblet_hpc.config import io as config_io
from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
DEMO = Path(__file__).parents[2] / "configs" / "demo.yaml"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_are_valid_and_round_trip(path: Path, tmp_path: Path) -> None:
    config = config_io.load(path)
    config_io.save(config, tmp_path / "again.yaml")
    assert config_io.load(tmp_path / "again.yaml") == config


def test_names_of_the_shipped_configs() -> None:
    names = {path.stem for path in CONFIGS}
    assert {
        "demo",
        "sherlock_production",
        "sherlock_dense",
        "sherlock_validation",
        "sherlock_quickcheck",
        "sherlock_quickcheck_high_lr",
        "sherlock_pmc_text",
    } <= names
    production = config_io.load(DEMO.with_name("sherlock_production.yaml"))
    assert (production.train.epochs, production.study.subjects) == (500, 17)
    validation = config_io.load(DEMO.with_name("sherlock_validation.yaml"))
    assert (validation.train.epochs, validation.study.subjects) == (50, 5)
    assert validation.bold.mode == "cross_subject"
    for name, rate in (("quickcheck", 1e-4), ("quickcheck_high_lr", 3e-4)):
        quick = config_io.load(DEMO.with_name(f"sherlock_{name}.yaml"))
        assert (quick.train.epochs, quick.study.subjects, quick.train.lr) == (20, 1, rate)


def test_typo_names_the_near_miss() -> None:
    with pytest.raises(ConfigError, match=r"train.learning_rte.*known|did you mean") as caught:
        config_io.load(DEMO, ["train.epoch=3", "model.temporal.rnak=3"])
    assert "train.epoch: unknown field; did you mean `epochs`?" in str(caught.value)
    assert "model.temporal.rnak: unknown field; did you mean `rank`?" in str(caught.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.lr=-1", "train.lr: Input should be greater than 0; got -1"),
        ("train.lr=fast", "train.lr: Input should be a valid number"),
        ("study.tr=null", "study.tr"),
        ("split.test_runs=[run9]", "must name some, not all, of ['run1', 'run2']"),
        ("split.purge_seconds=3", "shorter than the model's memory"),
        ("bold.files=scans.nii.gz", "must hold {subject}"),
        ("features={}", "at least one of video, audio, text, motion must be given"),
        ("loss.modality_weights={smell: 1}", "smell is not among the features in use"),
        (
            "bold.files=sub-{subject}_{film}.nii",
            "holds {film}; {subject}, {session}, {run}, {task}",
        ),
        ("bold.confounds=c_{subject}.tsv", "must hold {run} or {task} where bold.files does"),
        ("model.kind=dense", "set train.window_trs to 1"),
        ("study.runs=[{name: a}, {name: a}]", "names must differ"),
    ],
)
def test_wrong_values_are_explained(override: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_io.load(DEMO, [override])
    assert words in str(caught.value)


@pytest.mark.parametrize("override", ["train.lr", "=3", "train.lr.x=3", "study.runs.7.name=a"])
def test_overrides_that_cannot_be_applied(override: str) -> None:
    with pytest.raises(ConfigError):
        config_io.load(DEMO, [override])


def test_override_reaches_lists_and_new_sections() -> None:
    config = config_io.load(DEMO, ["study.runs.1.skip_trs=4", "evaluate.ridge.folds=3"])
    assert config.study.runs[1].skip_trs == 4
    assert config.evaluate.ridge.folds == 3


@pytest.mark.parametrize("content", ["", "- a\n- b", "{", "\x00"])
def test_files_that_are_no_config(content: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError):
        config_io.load(path)


@given(st.floats(1e-6, 1.0), st.integers(1, 500))
def test_fingerprint_changes_with_any_value_and_only_then(rate: float, epochs: int) -> None:
    config = config_io.load(DEMO)
    changed = config.model_copy(
        update={"train": config.train.model_copy(update={"lr": rate, "epochs": epochs})}
    )
    same = (rate, epochs) == (config.train.lr, config.train.epochs)
    assert (config_io.fingerprint(changed) == config_io.fingerprint(config)) is same
    lines = config_io.differences(config_io.plain(config), config_io.plain(changed))
    assert bool(lines) is not same


def test_every_field_is_documented() -> None:
    schema = RunConfig.model_json_schema()
    for section in [schema, *schema["$defs"].values()]:
        for name, field in section.get("properties", {}).items():
            assert field.get("description") or "$ref" in field, name


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_store_by_a_link_of_somebody_elses_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "store.zarr"
    link.symlink_to(tmp_path / "mine")
    setting = f"study.store={link}"
    assert config_io.load(DEMO, [setting]).study.store == tmp_path / "mine"
    os.chown(link, 12345, 12345, follow_symlinks=False)
    with pytest.raises(ConfigError, match="is a link that belongs to user 12345"):
        config_io.load(DEMO, [setting])


def test_two_runs_may_not_stand_for_the_same_files() -> None:
    runs = "study.runs=[{name: run1, task: movie, film: a.mp4}, {name: run2, task: movie, film: b.mp4}]"
    with pytest.raises(ConfigError, match="run1 and run2 stand for the same files"):
        config_io.load(DEMO, [runs, "bold.files=sub-{subject}_task-{task}.nii.gz"])
    sessions = runs.replace("film: a", "session: '1', film: a").replace(
        "film: b", "session: '2', film: b"
    )
    files = "bold.files=sub-{subject}_ses-{session}_task-{task}.nii.gz"
    assert len(config_io.load(DEMO, [sessions, files]).study.runs) == 2
