"""Which files hold a subject's scans and confounds, and what identifies their content."""

from __future__ import annotations

from pathlib import Path

from giblet_hpc.config.run import RunConfig
from giblet_hpc.digests import Digests
from giblet_hpc.files import sha256_json
from giblet_hpc.scans import volumes


def subject_digests(config: RunConfig, subject: str, digests: Digests) -> str:
    """Return one digest of all files of a subject."""
    files = volumes.scan_files(subject, config.study, config.bold)
    inputs = [digests.of(path) for path in dict.fromkeys(files.values())]
    if config.bold.confounds:
        inputs += [digests.of(confounds_path(config, subject, run)) for run in files]
    return sha256_json(inputs)


def confounds_path(config: RunConfig, subject: str, run: str) -> Path:
    """Return the confound table of a subject's run."""
    assert config.bold.confounds is not None
    return config.study.root / config.bold.confounds.format(subject=subject, run=run)


def rows_in_file(config: RunConfig, run: str) -> list[int]:
    """Return the first volume and the end of a run in a file of all runs; empty for own files."""
    if "{run}" in config.bold.files:
        return []
    span = volumes.concatenated_spans(config.study.runs)[run]
    return [span.start, span.stop]
