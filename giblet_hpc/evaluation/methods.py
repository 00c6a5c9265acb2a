"""What each stage says of itself in a methods section, with the works it cites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from giblet_hpc import __version__
from giblet_hpc.config.bold import Bold
from giblet_hpc.config.evaluate import DECODED_SECONDS, SEGMENT_SECONDS
from giblet_hpc.config.run import RunConfig
from giblet_hpc.files import read_json, write_json
from giblet_hpc.runs.paths import STAGES, RunPaths, Stage


class Remarks(Protocol):
    """A modality, as far as it is asked here."""

    def remarks(self) -> list[str]:
        """Return what it says of itself."""


def save(paths: RunPaths, stage: Stage, sentences: Sequence[str]) -> None:
    """Keep what a stage says."""
    write_json(paths.methods(stage), list(sentences))


def read(paths: RunPaths) -> list[str]:
    """Return what all stages have said, in their order."""
    found: list[str] = []
    for stage in STAGES:
        file = paths.methods(stage)
        found += read_json(file) if file.is_file() else []
    return found


def of_preprocess(
    config: RunConfig,
    modalities: Mapping[str, Remarks],
    *,
    subjects: int,
    lengths: Mapping[str, int],
    voxels: int,
    unit: str,
    rule: str,
) -> list[str]:
    """Return what preprocess did to scans and stimulus.

    Parameters
    ----------
    config : RunConfig
    modalities : mapping of str to Remarks
    subjects, voxels : int
    unit, rule : str
        What a target is called, and how the mask was voted for; empty where it was given.
    lengths : mapping of str to int
        TRs of each run.
    """
    bold = config.bold
    runs = ", ".join(f"{name} ({trs} TRs)" for name, trs in lengths.items())
    shares = {
        "vote": f"whose temporal SD exceeded the {bold.vote_percentile:g}th percentile in at least "
        f"{100 * bold.vote_threshold:g} % of subjects",
        "varying": f"that varied over time in at least {100 * bold.vote_threshold:g} % of subjects",
    }
    mask = shares.get(rule, "of a given mask")
    done = [
        *(["linearly detrended"] if bold.detrend else []),
        *([f"high-pass filtered at {bold.high_pass:g} Hz"] if bold.high_pass else []),
        *_cleaning(bold),
        "z-scored over each whole run",
    ]
    said = [
        f"Analyses used giblet-hpc {__version__}.",
        f"Scans of {subjects} subjects (TR {config.study.tr:g} s; runs {runs}) were restricted to "
        f"{voxels:,} {unit} {mask}, and {', '.join(done)}.",
    ]
    if bold.shifted_trs:
        said.append(f"The files were shifted by {bold.shifted_trs} TRs; that was undone before "
                    "modelling.")  # fmt: skip
    for modality in modalities.values():
        said += modality.remarks()
    return said


def _cleaning(bold: Bold) -> list[str]:
    """Say what confounds were regressed out and which scans they ruled out."""
    said = []
    if bold.confounds and bold.regressed_columns:
        said.append(f"cleaned of the confounds {', '.join(bold.regressed_columns)}")
    if bold.confound_strategy:
        said.append(f"cleaned by nilearn's strategies {', '.join(bold.confound_strategy)}")
    if bold.scrub_fd:
        said.append(f"censored at a framewise displacement of {bold.scrub_fd:g} mm")
    return said


def of_training(config: RunConfig, *, parameters: int, chosen: Sequence[str] = ()) -> list[str]:
    """Return how the network was trained.

    Parameters
    ----------
    config : RunConfig
    parameters : int
        Of the network.
    chosen : sequence of str
        Fields that were chosen inside the training TRs; of several folds ``config`` has the last
        one's.
    """
    train, model = config.train, config.model
    target = (
        "the mean over subjects" if config.bold.mode == "cross_subject" else "each subject's scans"
    )
    return [
        f"A {model.kind} network of {parameters:,} parameters with a bottleneck of "
        f"{model.bottleneck} units predicted {target} and reconstructed the stimulus; it saw "
        f"{config.memory_trs} TRs before each predicted one.",
        f"It was trained with PyTorch [@paszke2019] and AdamW [@loshchilov2019] (peak rate "
        f"{train.lr:g}, weight decay {train.weight_decay:g}, {train.warmup_epochs:g} epochs of "
        f"warm-up, {train.epochs} epochs, steps of {train.batch_windows} windows of "
        f"{train.window_trs} TRs, seed {train.seed}); the checkpoint with the least error on "
        "validation TRs was evaluated.",
        *(
            [f"Predictions are the mean of {train.seeds} networks with different seeds."]
            if train.seeds > 1
            else []
        ),
        *(
            [
                f"Settings ({', '.join(chosen)}; given are the last fold's) were chosen for each "
                f"fold by the mean r of {config.split.inner_blocks} purged blocks of its training "
                "TRs, each predicted by networks of the others."
            ]
            if chosen
            else []
        ),
    ]


def of_evaluation(config: RunConfig, *, delays: Sequence[int]) -> list[str]:
    """Return how the scores were made.

    Parameters
    ----------
    config : RunConfig
    delays : sequence of int
        TRs, of ridge.
    """
    options = config.evaluate
    said = [
        f"The split left {config.purge_trs} TRs between parts of a run. Scores are Pearson "
        "correlations over time on all test TRs at once, after removing each run's mean, averaged "
        "over voxels and subjects as Fisher z.",
        f"The linear baseline is banded ridge regression [@dupre2022] on lags of {min(delays)} to "
        f"{max(delays)} TRs of at most {options.ridge.components} principal components a modality, "
        "with a smooth prior over lags [@goutte2000]; its length scale, and whether voxels share a "
        "penalty and weights of the modalities, were chosen by nested cross-validation over purged "
        "contiguous blocks of training and validation TRs, penalties and weights by one inside it.",
        "The noise ceiling comes from the correlation between subjects on the test TRs "
        "[@nastase2019] [@schoppe2016]; where that is not above chance (courses shifted around in "
        "time, false discovery rate 5 %) there is none.",
    ]
    return [*said, *_further(config)]


def _further(config: RunConfig) -> list[str]:
    """Return what is said of an evaluation's parts that a config may leave out."""
    options = config.evaluate
    said = []
    if options.network and (config.split.inner_blocks or config.split.validation_fraction):
        held_out = (
            f"{config.split.inner_blocks} blocks of training TRs, each predicted by networks and "
            "ridge of the others"
            if config.split.inner_blocks
            else "validation TRs"
        )
        said.append(
            "Network and ridge together are their mean at equal deviation, weighted by a gate of "
            f"each region, from 0 to 1: the least one within a standard error of the best on "
            f"{held_out} [@breiman1996]."
        )
    if options.network and options.decode:
        said.append(
            "From scans the stimulus was decoded by ridge regression of the network's bottleneck "
            f"on the scans of each TR and of {DECODED_SECONDS:g} s after it, its penalty chosen by "
            "purged blocks of training and validation TRs, and by the network's decoders."
        )
    said.append(
        f"Stretches of {SEGMENT_SECONDS:g} s of test TRs were told apart by the cosine between "
        "their patterns (time segment matching [@haxby2011])."
    )
    if options.chance_shifts:
        said.append(
            f"Scores by chance come from {options.chance_shifts:,} shifts of the predictions "
            "around in their run, the same for all voxels and subjects; voxels are corrected by "
            "the false discovery rate and by the largest voxel [@nichols2002]."
        )
    if options.bootstrap_draws:
        said.append(
            f"Intervals (95 %) come from {options.bootstrap_draws:,} draws of blocks of "
            f"{options.bootstrap_seconds:g} s of test TRs [@kunsch1989] and of subjects; that of "
            "the difference between network and ridge from the same draws."
        )
    return said
