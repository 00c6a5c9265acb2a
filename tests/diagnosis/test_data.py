"""What arrays hold, against numpy; faults that are planted in them; the share of each component."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.strategies import integers

from giblet_hpc.config import io
from giblet_hpc.diagnosis import data
from giblet_hpc.diagnosis.steps import steps
from giblet_hpc.findings import Finding
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.scans.tables import Columns
from giblet_hpc.splits import Block, Fold
from giblet_hpc.training.feed import RunArrays, StudyArrays

CONFIG = Path(__file__).parents[2] / "configs" / "demo.yaml"
FOLD = Fold("", (Block("run1", 0, 200),), (), (Block("run1", 210, 300),))


def study(scale: float = 1.0, offset: float = 0.0) -> StudyArrays:
    random = np.random.default_rng(0)
    stimulus = {
        "video": random.integers(0, 256, (300, 2, 4, 5, 3), dtype=np.uint8),
        "audio": random.integers(0, 1024, (300, 2, 6)).astype(np.int16),
        "text": random.poisson(0.2, (300, 30)).astype(np.float32),
    }
    bold = (scale * random.standard_normal((2, 300, 8)) + offset).astype(np.float32)
    run = RunArrays(stimulus, bold, np.ones((2, 300), bool))
    return StudyArrays({"run1": run}, ("01", "02"), np.ones(8, bool), Columns(8), {})


def looked(
    whole: StudyArrays, *options: str, ranks: int = 1
) -> tuple[list[Finding], dict[str, Any]]:
    config = io.load(CONFIG, options)
    check = data.DataCheck(config, whole, modalities_of(config.features), folds=[FOLD], ranks=ranks)
    return list(check.findings()), check.facts()


def bad(found: list[Finding]) -> dict[str, Finding]:
    return {one.check: one for one in found if one.level in ("warn", "fail")}


def test_a_summary_is_numpys() -> None:
    rows = np.random.default_rng(0).integers(0, 5, (150, 3, 7)).astype(np.float32)
    rows[40] = rows[41] = rows[64] = 3
    rows[90, 0, 0] = np.nan
    found = data.look(rows)[0]
    assert (found["trs"], found["values"]) == (150, 21)
    assert (found["low"], found["high"]) == (0, 4)
    assert found["mean"] == pytest.approx(np.nanmean(rows))
    assert found["sd"] == pytest.approx(np.nanstd(rows))
    assert found["zeros"] == pytest.approx((rows == 0).mean())
    assert found["nans"] == pytest.approx(1 / rows.size)
    assert (found["constant"], found["repeated"]) == (3, 1)
    assert sum(found["histogram"]) == sum(
        rows[start : start + 64][::16].size for start in (0, 64, 128)
    )
    whole = np.random.default_rng(1).standard_normal((130, 4))
    assert data.look(whole)[0]["variance"] == pytest.approx(whole.var(0).mean())


def test_a_sound_study() -> None:
    found, facts = looked(study())
    assert bad(found) == {}
    assert set(facts["arrays"]) == {"stimulus/run1/video", "stimulus/run1/audio",
                                    "stimulus/run1/text", "bold/01/run1", "bold/02/run1"}  # fmt: skip
    assert facts["first_losses"]["variance"] == pytest.approx(
        {"fmri": 1.0, "video": 0.1, "audio": 0.1, "text": 0.1}
    )


def test_scans_in_scanner_units_with_raw_errors() -> None:
    found, facts = looked(study(scale=300, offset=9000), "loss.normalise=none")
    scales = bad(found)["scales"]
    assert scales.level == "fail"
    assert "fmri outweighs all others" in scales.seen
    assert facts["first_losses"]["none"]["fmri"] == pytest.approx(9e4, rel=0.1)
    assert "scales" not in bad(looked(study(scale=300, offset=9000))[0])


def test_codes_as_numbers_over_their_deviation() -> None:
    """The original's scale: its audio was over 99 % of the loss."""
    settings = ("model.kind=dense", "train.window_trs=1", "loss.normalise=std",
                "train.batch_windows=16", "loss.reconstruction_weight=1")  # fmt: skip
    found, facts = looked(study(), *settings)
    assert "audio outweighs all others" in bad(found)["scales"].seen
    assert facts["first_losses"]["std"]["audio"] > 200


@pytest.mark.parametrize(
    ("settings", "ranks", "check", "said"),
    [
        (("train.epochs=5",), 1, "steps", "30 in all"),
        (("train.warmup_epochs=40",), 1, "steps", "the rate is not up for long"),
        (("train.batch_windows=30",), 1, "steps", "a batch needs 30"),
        (("model.kind=dense", "train.window_trs=1", "train.batch_windows=4"), 2, "batch",
         "BatchNorm would see 4 TRs"),
    ],
)  # fmt: skip
def test_settings_that_trainings_were_lost_by(
    settings: tuple[str, ...], ranks: int, check: str, said: str
) -> None:
    found = bad(looked(study(), *settings, ranks=ranks)[0])
    assert said in found[check].seen
    assert "--set" in found[check].fix


def test_arrays_with_faults() -> None:
    whole = study()
    run = whole.runs["run1"]
    run.stimulus["text"][7, 3] = np.nan
    run.stimulus["video"][100:] = run.stimulus["video"][100]
    run.bold[1, 50:150:10] += 40
    found = bad(looked(whole)[0])
    assert set(found) == {"text of run1", "video of run1", "scans of 02, run1"}
    assert found["text of run1"].level == "fail"
    assert "199 TRs are those before" in found["video of run1"].seen
    assert "jumps at 20 TRs" in found["scans of 02, run1"].seen
    run.stimulus["text"][:] = 0
    assert "nothing changes" in bad(looked(whole)[0])["text of run1"].seen


@settings(max_examples=60, deadline=None)
@given(trs=integers(1, 400), values=integers(1, 50), budget=integers(1, 30_000))
def test_a_sample_is_within_the_array_and_its_budget(trs: int, values: int, budget: int) -> None:
    found = data.spans(trs, values, budget)
    assert all(0 <= start < stop <= trs for start, stop in found)
    assert found[0][0] == 0
    read = values * sum(stop - start for start, stop in found)
    assert read <= max(budget, values * data.FEWEST)
    assert read == values * trs or len(found) == 1 or found[-1][1] == trs


def test_a_large_array_is_sampled_from_end_to_end() -> None:
    rows = np.random.default_rng(0).standard_normal((2000, 50)).astype(np.float32)
    rows[990:1010] = np.nan
    reads: list[slice] = []

    class Noted:
        shape, dtype = rows.shape, rows.dtype

        def __getitem__(self, key: slice) -> Any:
            reads.append(key)
            return rows[key]

    found, trs, change = data.look(Noted(), 50 * 320)
    assert (found["trs"], found["sampled"]) == (2000, 320)
    assert sum(key.stop - key.start for key in reads) == 320
    assert (reads[0].start, reads[-1].stop) == (0, 2000)
    assert found["sd"] == pytest.approx(1.0, abs=0.05)
    assert len(trs) == len(change) == 320 - 20
    assert change[0] == pytest.approx(float(np.sqrt(np.square(rows[1] - rows[0]).mean())))


def test_warm_up_at_a_slow_pace() -> None:
    """The original: ten epochs of warm-up, 5 s a step, and nobody knew that it had not ended."""
    config = io.load(CONFIG, ["train.warmup_epochs=4", "train.epochs=100", "train.batch_windows=2"])
    found = {
        one.check: one for one in steps(config, [FOLD], subjects=2, ranks=1, step_seconds=4000.0)
    }
    assert found["steps"].level == "warn"
    assert "h at 4e+03 s a step" in found["steps"].seen
    assert "--set train.warmup_epochs=" in found["steps"].fix


def test_a_network_that_cannot_tell_subjects_apart() -> None:
    options = ("model.kind=dense", "train.window_trs=1", "train.batch_windows=16")
    assert "cross_subject predicts their mean" in bad(looked(study(), *options)[0])["mode"].fix
    assert "mode" not in bad(looked(study(), *options, "bold.mode=cross_subject")[0])
    assert "mode" not in bad(looked(study())[0])
