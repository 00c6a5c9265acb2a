"""A run config: everything that a run depends on.

A config is YAML. Fields that are left out take the defaults below; unknown fields are errors.
`giblet-hpc config schema` prints it as JSON Schema.
"""

from __future__ import annotations

from typing import Self

from pydantic import ValidationError, model_validator
from pydantic.fields import FieldInfo

from giblet_hpc.config import choices
from giblet_hpc.config.bold import Bold
from giblet_hpc.config.evaluate import Evaluate
from giblet_hpc.config.features import FROM_FILMS, Features, Modality
from giblet_hpc.config.health import Health
from giblet_hpc.config.loss import Loss
from giblet_hpc.config.model import Model
from giblet_hpc.config.section import Section
from giblet_hpc.config.split import Split
from giblet_hpc.config.study import Study
from giblet_hpc.config.train import Train


class RunConfig(Section):
    """All that a run depends on."""

    study: Study
    """The study's files and time."""
    bold: Bold = Bold()
    """The scans."""
    features: Features
    """The stimulus features."""
    split: Split = Split()
    """Training, validation and test TRs."""
    model: Model = Model()
    """The network."""
    loss: Loss = Loss()
    """What is minimised."""
    train: Train = Train()
    """How it is trained."""
    evaluate: Evaluate = Evaluate()
    """How it is scored."""
    health: Health = Health()
    """When a training is said not to be able to succeed."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        names = [run.name for run in self.study.runs]
        if len(set(names)) != len(names):
            raise ValueError(f"study.runs: names must differ, got {names}")
        if self.split.scheme == "leave-one-run-out" and len(names) < 2:
            raise ValueError("split.scheme leave-one-run-out needs two runs; use `blocks`")
        if self.split.scheme == "runs":
            unknown = set(self.split.test_runs) - set(names)
            if unknown or not self.split.test_runs or len(self.split.test_runs) >= len(names):
                raise ValueError(
                    f"split.test_runs must name some, not all, of {names}; "
                    f"got {list(self.split.test_runs)}"
                )
        self._check_files()
        self._check_modalities()
        self._check_memory()
        self._check_choices()
        if self.train.optimizer == "adamw8bit" and self.model.parallel != "ddp":
            raise ValueError("train.optimizer adamw8bit is for model.parallel: ddp")
        return self

    def _check_choices(self) -> None:
        if not self.train.choose:
            return
        choices.require_choosable(self.train.choose)
        if not self.split.inner_blocks:
            raise ValueError("train.choose needs split.inner_blocks, such as 5, to choose by")
        for settings in choices.combinations(self.train.choose):
            try:
                self.model_validate(choices.with_settings(self.model_dump(), settings))
            except ValidationError as error:
                problem = error.errors(include_url=False)[0]
                where = ".".join(map(str, problem["loc"]))
                raise ValueError(
                    f"train.choose {choices.in_words(settings)}: {where} {problem['msg']}"
                ) from None

    @property
    def candidates(self) -> list[Self]:
        """The configs that ``train.choose`` chooses from; none where nothing is chosen."""
        tree = self.model_dump()
        found = choices.combinations(self.train.choose)
        return [self.model_validate(choices.with_settings(tree, one)) for one in found]

    def _check_modalities(self) -> None:
        sections = self.features.sections
        films = all(run.film is not None for run in self.study.runs)
        sheets = all(self.study.annotations.file or run.annotations for run in self.study.runs)
        for name, section in sections.items():
            if section.needs in FROM_FILMS and not films:
                raise ValueError(f"features.{name} needs a film, or its sound, for every run")
            if section.needs == "annotations" and not sheets:
                raise ValueError(
                    f"features.{name} needs study.annotations.file or annotations of every run"
                )
        if unknown := sorted(set(self.loss.modality_weights) - set(sections)):
            raise ValueError(
                f"loss.modality_weights: {', '.join(unknown)} is not among the features in use: "
                f"{', '.join(sections)}"
            )

    def _check_files(self) -> None:
        """Refuse runs that the same file, or array, would be read for."""
        if not self.bold.one_file_a_run:
            return
        text, seen = self.bold.files + (self.bold.dataset or ""), dict[tuple[str, ...], str]()
        for run in self.study.runs:
            own = tuple(v for name, v in run.fields.items() if f"{{{name}}}" in text)
            if other := seen.get(own):
                raise ValueError(
                    f"study.runs {other} and {run.name} stand for the same files: give them a "
                    "`label`, `task` or `session` that bold.files tells apart"
                )
            seen[own] = run.name

    def _check_memory(self) -> None:
        every = self.features.sections.values()
        if self.model.kind == "dense" and not all(s.feeds and s.reconstruct for s in every):
            raise ValueError(
                "model.kind dense sees and reconstructs video, audio and text themselves: encoders "
                "and features that are not reconstructed are for model.kind temporal"
            )
        if self.model.kind == "dense" and self.train.window_trs != 1:
            raise ValueError("model.kind dense takes single TRs: set train.window_trs to 1")
        if self.purge_trs < self.memory_trs:
            raise ValueError(
                f"split.purge_seconds ({self.split.purge_seconds:g}, {self.purge_trs} TRs) is "
                f"shorter than the model's memory ({self.memory_trs} TRs), so a training window "
                "would reach into test TRs"
            )

    @property
    def purge_trs(self) -> int:
        """TRs left out on both sides of a boundary inside a run."""
        return self.split.purge_trs(self.study.tr)

    @property
    def memory_trs(self) -> int:
        """Past TRs that a prediction depends on, besides its own TR."""
        if self.model.kind == "dense":
            return 0
        options = self.model.temporal
        context = sum(2 * 2**layer for layer in range(options.context_layers))
        return options.fir_trs(self.study.tr) - 1 + context


def add_section(name: str, section: type[Modality]) -> None:
    """Make a modality's section a field of the schema, `features.NAME`.

    For modalities that live outside this package; those in it are fields of `Features`.
    """
    field = FieldInfo(annotation=section | None, default=None)  # type: ignore[arg-type]
    Features.__pydantic_fields__[name] = field
    for model in (Features, RunConfig):
        model.model_rebuild(force=True)
