"""Which file holds a subject's run: file patterns, and one listing of what matches them.

By names alone: no file is opened.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from giblet_hpc.config.bold import Bold
from giblet_hpc.config.study import Study
from giblet_hpc.errors import DataError

PARTS = re.compile(r"\{[a-z]+\}|\*")
HEMISPHERES = ("L", "R")


class FilePattern:
    """A path with fields, such as ``sub-{subject}/ses-*/sub-{subject}_{run}.nii.gz``.

    A field stands for text without a slash, the same wherever it is repeated; ``*`` for any text
    without a slash, also none. Everything else stands for itself.

    Parameters
    ----------
    pattern : str
        Absolute, or relative to ``root``.
    root : Path
    """

    def __init__(self, pattern: str, root: Path) -> None:
        self.text = pattern
        self._root = Path("/") if pattern.startswith("/") else root
        self._relative = PurePosixPath(pattern.lstrip("/")).as_posix()

    @property
    def fields(self) -> set[str]:
        """Names of the fields."""
        return {part[1:-1] for part in PARTS.findall(self.text) if part != "*"}

    def paths(self, given: Mapping[str, str] | None = None) -> list[Path]:
        """List what matches on disk, whatever the other fields hold; hidden files are left out.

        Parameters
        ----------
        given : mapping of str to str, optional
            What some fields hold.
        """
        known = {f"{{{name}}}": value for name, value in (given or {}).items()}
        pieces = [known.get(piece, piece) for piece in _pieces(self._relative)]
        wanted = re.sub(r"\*+", "*", "".join(map(_escaped, pieces)))
        found = self._root.glob(wanted) if wanted else iter(())
        return sorted(path for path in found if not self._hidden(path))

    def _hidden(self, path: Path) -> bool:
        """Whether a name begins with a dot that the pattern has not."""
        names = path.relative_to(self._root).parts
        wanted = Path(self._relative).parts
        return any(
            name.startswith(".") and not own.startswith(".")
            for name, own in zip(names, wanted, strict=True)
        )

    def match(self, paths: Iterable[Path], given: Mapping[str, str]) -> list[Match]:
        """Return those of ``paths`` that fit, the fields in ``given`` holding just that.

        Parameters
        ----------
        paths : iterable of Path
            From `paths`.
        given : mapping of str to str
        """
        regex = re.compile(self._regex(given))
        found = []
        for path in paths:
            if match := regex.fullmatch(path.relative_to(self._root).as_posix()):
                found.append(Match(path, {**given, **match.groupdict()}))
        return found

    def filled(self, given: Mapping[str, str]) -> Path:
        """Return the path with the fields filled in; ``*`` where they are not given."""
        return self._root / PARTS.sub(
            lambda part: given.get(part[0][1:-1], "*") if part[0] != "*" else "*", self._relative
        )

    def _regex(self, given: Mapping[str, str]) -> str:
        text, seen = "", set()
        pieces = _pieces(self._relative)
        for piece, after in itertools.zip_longest(pieces, pieces[1:]):
            name = piece[1:-1]
            if piece == "*":
                text += "[^/]*"
            elif not PARTS.fullmatch(piece):
                text += re.escape(piece)
            elif name in given:
                text += re.escape(given[name])
            elif name in seen:
                text += f"(?P={name})"
            else:
                # What `*` follows has no end of its own: it ends at an underscore, as BIDS labels.
                text += f"(?P<{name}>[^/_]+)" if after == "*" else f"(?P<{name}>[^/]+?)"
                seen.add(name)
        return text


@dataclass(frozen=True)
class Match:
    """A file that fits a pattern."""

    path: Path
    fields: Mapping[str, str]
    """What the fields stand for in its path."""


def _pieces(pattern: str) -> list[str]:
    return [piece for piece in re.split(r"(\{[a-z]+\}|\*)", pattern) if piece]


def _escaped(piece: str) -> str:
    if PARTS.fullmatch(piece):
        return "*"
    return re.sub(r"([\[?])", r"[\1]", piece)


class StudyFiles:
    """The files of scans of a study, as one listing found them.

    Parameters
    ----------
    study : Study
    bold : Bold
    """

    def __init__(self, study: Study, bold: Bold) -> None:
        self._study, self.pattern = study, FilePattern(bold.files, study.root)
        self._missing = bold.missing_runs
        paths = self.pattern.paths()
        self._found: dict[tuple[str, str], list[Match]] = {}
        for run in study.runs:
            for match in self.pattern.match(paths, run.fields):
                self._found.setdefault((match.fields["subject"], run.name), []).append(match)

    @property
    def subjects(self) -> tuple[str, ...]:
        """Everyone who has a file of some run, in natural order."""
        return tuple(sorted(dict.fromkeys(subject for subject, _ in self._found), key=natural))

    def of(self, subject: str, run: str) -> tuple[Path, ...]:
        """Return the file of a subject's run, or its two hemispheres, left first.

        Empty where the subject lacks the run and `bold.missing_runs` allows that.

        Raises
        ------
        DataError
            When it is not there, or when several files fit.
        """
        matches = self._found.get((subject, run), [])
        if "hemi" in self.pattern.fields and matches:
            chosen = [[m for m in matches if m.fields["hemi"] == side] for side in HEMISPHERES]
        else:
            chosen = [matches]
        for side in chosen:
            if len(side) > 1:
                raise DataError(
                    f"{len(side)} files fit bold.files for run {run} of subject {subject}: "
                    + ", ".join(str(match.path) for match in side[:3]),
                    hint="say more in bold.files, or give study.runs a `session`",
                )
        if not all(chosen):
            if self._missing == "allow" and not matches:
                return ()
            wanted = self.pattern.filled({"subject": subject, **self._given(run)})
            raise DataError(
                f"scan not found: {wanted}",
                hint="check bold.files; if the subject lacks this run: bold.missing_runs: allow, "
                "or leave the subject out with study.subjects",
            )
        return tuple(side[0].path for side in chosen)

    def beside(self, pattern: FilePattern, subject: str, run: str) -> Path:
        """Return the file of another pattern that goes with a subject's run of scans.

        Raises
        ------
        DataError
            When none fits, or several do.
        """
        scans = self._found[subject, run][0].fields
        given = {name: scans[name] for name in pattern.fields if name in scans}
        given = {**self._given(run), **given, "subject": subject}
        filled = pattern.filled(given)
        if "*" not in str(filled):
            return filled
        found = pattern.match(pattern.paths(given), given)
        if len(found) != 1:
            raise DataError(
                f"{len(found) or 'no'} files fit {pattern.text} for run {run} of subject {subject}",
                hint="say more in the pattern" if found else "check the pattern",
            )
        return found[0].path

    def _given(self, run: str) -> dict[str, str]:
        return next(own for own in self._study.runs if own.name == run).fields


def natural(name: str) -> list[tuple[bool, int, str]]:
    """Return a key by which s2 comes before s10."""
    parts = re.split(r"(\d+)", name)
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]
