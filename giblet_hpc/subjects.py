"""Which subjects a study has: by the names of their files, without opening them."""

from __future__ import annotations

from dataclasses import dataclass

from giblet_hpc.config.bold import Bold
from giblet_hpc.config.run import RunConfig
from giblet_hpc.config.study import Study
from giblet_hpc.errors import DataError
from giblet_hpc.study_files import StudyFiles


def find_subjects(study: Study, bold: Bold, files: StudyFiles | None = None) -> tuple[str, ...]:
    """Return the names of the subjects to use, in natural order.

    Parameters
    ----------
    study : Study
    bold : Bold
    files : StudyFiles, optional
        Of this study, where they have been listed already.

    Raises
    ------
    DataError
        When no file matches, or a listed subject has none.
    """
    files = files or StudyFiles(study, bold)
    names = files.subjects
    if not names:
        wanted = files.pattern.filled(study.runs[0].fields)
        raise DataError(
            f"no scans match {wanted}",
            hint="check study.root, bold.files and the names of study.runs; the config shows them "
            "with `giblet-hpc config show`",
        )
    if study.subjects == "all":
        return names
    if isinstance(study.subjects, int):
        if study.subjects > len(names):
            raise DataError(f"study.subjects asks for {study.subjects}; found {len(names)}")
        return names[: study.subjects]
    absent = [name for name in study.subjects if name not in names]
    if absent:
        raise DataError(
            f"study.subjects lists {absent}, who have no scans; found {list(names)}",
            hint="correct study.subjects, or check bold.files",
        )
    return tuple(study.subjects)


@dataclass(frozen=True)
class PreprocessPart:
    """A part of preprocess that can be made beside the others, by a job of its own."""

    name: str
    """`subject-NAME` or `RUN-MODALITY`."""
    wants_gpu: bool
    """Whether a GPU makes it much faster."""


def preprocess_parts(config: RunConfig) -> list[PreprocessPart]:
    """Return the parts of preprocess that can be made side by side, a job each.

    Raises
    ------
    DataError
        When no file matches, or a listed subject has none.
    """
    subjects = find_subjects(config.study, config.bold)
    parts = [PreprocessPart(f"subject-{name}", False) for name in subjects]
    for run in config.study.runs:
        for name, section in config.features.sections.items():
            parts.append(PreprocessPart(f"{run.name}-{name}", section.wants_gpu))
    return parts
