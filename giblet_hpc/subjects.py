"""Which subjects a study has: by the names of their files, without opening them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from giblet_hpc.config.bold import Bold
from giblet_hpc.config.run import RunConfig
from giblet_hpc.config.study import Study
from giblet_hpc.errors import DataError


def find_subjects(study: Study, bold: Bold) -> tuple[str, ...]:
    """Return the names of the subjects to use, in natural order.

    Raises
    ------
    DataError
        When no file matches, or a listed subject has none.
    """
    pattern = bold.files.replace("{run}", study.runs[0].name)
    root = Path("/") if pattern.startswith("/") else study.root
    before, after = pattern.lstrip("/").split("{subject}", 1)
    found = {}
    for path in sorted(root.glob(f"{before}*{after.replace('{subject}', '*')}")):
        relative = path.relative_to(root).as_posix()
        regex = "(?P<s>[^/]+)".join(map(re.escape, (before, after.split("{subject}")[0])))
        if match := re.match(regex, relative):
            found[match["s"]] = path
    names = sorted(found, key=lambda name: [int(p) if p.isdigit() else p for p in
                                            re.split(r"(\d+)", name)])  # fmt: skip
    if not names:
        raise DataError(
            f"no scans match {study.root / pattern}",
            hint="check study.root and bold.files; the config shows them with "
            "`giblet-hpc config show`",
        )
    if study.subjects == "all":
        return tuple(names)
    if isinstance(study.subjects, int):
        if study.subjects > len(names):
            raise DataError(f"study.subjects asks for {study.subjects}; found {len(names)}")
        return tuple(names[: study.subjects])
    absent = [name for name in study.subjects if name not in names]
    if absent:
        raise DataError(
            f"study.subjects lists {absent}, who have no scans; found {names}",
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
