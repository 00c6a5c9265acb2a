"""A study config from what a folder holds, with comments on what was found and what was not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from giblet_hpc.config import io
from giblet_hpc.config.run import RunConfig
from giblet_hpc.discovery import scans, stimuli
from giblet_hpc.discovery.headers import Header, read_header
from giblet_hpc.discovery.scans import Layout
from giblet_hpc.discovery.stimuli import Stimuli
from giblet_hpc.errors import DataError

DEFAULT_TR = 1.5
LOOKED_AT = 12
"""Files whose headers are read."""
NAMED = 6
ATLAS = re.compile(r"atlas|region|parcel|dseg|label")


@dataclass(frozen=True)
class Draft:
    """A config and how it came about."""

    text: str
    found: tuple[str, ...]
    """What the folder holds, a sentence each."""
    undecided: tuple[str, ...]
    """What the user has to decide."""
    config: RunConfig = field(repr=False)


@dataclass(frozen=True)
class Extras:
    """What belongs to the scans beside their files."""

    confounds: str = ""
    masks: str = ""
    regions: str = ""
    names: str = ""


def draft_config(folder: Path) -> Draft:
    """Look at a folder and write the config of a study.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    DataError
        When it holds no scans, or neither films nor words.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}", hint="name the folder that holds the study")
    files = scans.list_files(folder)
    layouts = scans.find_layouts(folder, files)
    if not layouts:
        raise DataError(
            f"{folder}: no scans found among {len(files)} files",
            hint="files of scans (.nii.gz, .func.gii, .dtseries.nii, .h5) are known by sub-NAME or "
            "s1 in their names; write bold.files by hand, as in configs/",
        )
    layout = layouts[0]
    shown = stimuli.find_stimuli(folder, files, layout.runs)
    if not (shown.films or shown.words or shown.sheet):
        raise DataError(
            f"{folder}: scans of {len(layout.subjects)} subjects and {len(layout.runs)} runs, but "
            "no film, sound or words that could be given to the runs"
            + "".join(f"; {said}" for said in shown.undecided),
            hint="put a film or a sheet for each run into the folder, its name like the run's, or "
            "write study.runs by hand, as in configs/",
        )
    return _Writer(folder, files, layouts, shown).draft()


class _Writer:
    """Puts a config together."""

    def __init__(
        self, folder: Path, files: Sequence[Path], layouts: Sequence[Layout], shown: Stimuli
    ) -> None:
        self._folder, self._files, self._shown = folder, files, shown
        self._layout, self._others = layouts[0], layouts[1:]
        self._headers = _headers(self._layout)
        self._found: list[str] = []
        self._undecided: list[str] = list(shown.undecided)

    def draft(self) -> Draft:
        """Return the config."""
        layout = self._layout
        counts = ", ".join(
            f"{len(items)} {word}{'s' if len(items) > 1 else ''}"
            for items, word in ((layout.subjects, "subject"), (layout.runs, "run"))
        )
        self._found.append(f"scans of {counts}: {layout.pattern}")
        lines = [*self._study(), *self._bold(), *self._features(), *self._split()]
        about = [
            "# A study, drafted from the files in its folder. Check the lines with (?), then:",
            "#   giblet-hpc config check THIS-FILE --data",
            *(f"# found: {said}" for said in self._found),
            *(f"# (?) not decided: {said}" for said in self._undecided),
        ]
        text = "\n".join([*about, *lines]) + "\n"
        config = io.validate(yaml.safe_load(text), source="the draft")
        return Draft(text, tuple(self._found), tuple(self._undecided), config)

    def _study(self) -> list[str]:
        shown, layout = self._shown, self._layout
        root = str(self._folder)
        lines = ["study:", f"  name: {_yaml(_name(self._folder))}", f"  root: {_yaml(root)}"]
        lines += [*self._tr(), "  runs:"]
        trs = self._headers[0].trs
        if not layout.file_a_run and trs:
            self._undecided.append(
                f"study.runs: each file of scans holds {trs} TRs; if those are several runs one "
                "after the other, list them with their trs"
            )
        for run in layout.runs:
            fields: dict[str, str | int] = {"name": run.name}
            if run.label not in ("", run.name):
                fields["label"] = run.label
            if run.task not in ("", run.name):
                fields["task"] = run.task
            if run.session:
                fields["session"] = run.session
            if run in shown.films:
                fields["film"] = shown.films[run].as_posix()
            if run in shown.words:
                fields["annotations"] = shown.words[run].as_posix()
            if not layout.file_a_run:
                fields["trs"] = trs or 1
            inside = ", ".join(f"{key}: {_yaml(value)}" for key, value in fields.items())
            lines.append(f"    - {{{inside}}}")
        if shown.films:
            what = "films" if shown.picture else "sounds"
            self._found.append(f"{what} of {len(shown.films)} runs, such as "
                               f"{next(iter(shown.films.values()))}")  # fmt: skip
        return lines + self._annotations()

    def _tr(self) -> list[str]:
        stated = Counter(header.tr for header in self._headers if header.tr)
        if not stated:
            self._undecided.append(f"study.tr: the files do not say it; {DEFAULT_TR} s is a guess")
            return [f"  tr: {DEFAULT_TR}  # (?) seconds between scans"]
        (tr, count), *others = stated.most_common()
        if others:
            self._undecided.append(f"study.tr: headers say {', '.join(f'{t:g} s' for t in stated)}")
        return [f"  tr: {tr:g}  # as {count} of {len(self._headers)} headers say that were read"]

    def _annotations(self) -> list[str]:
        shown = self._shown
        if not (shown.words or shown.sheet):
            return []
        kind = next(iter(shown.words.values()), shown.sheet)
        more = f" and {len(shown.words) - 1} more" if len(shown.words) > 1 else ""
        self._found.append(f"words: {kind}{more}")
        lines = ["  annotations:"]
        if shown.sheet:
            lines.append(f"    file: {_yaml(shown.sheet.as_posix())}")
        columns = shown.columns
        if columns is None:
            return [*lines, "    join_seconds: null  # a number joins words into segments so long"]
        trs = bool(columns.start_tr and columns.end_tr and shown.sheet)
        lines += [
            f"    text: {_yaml(list(columns.text))}",
            f"    start_seconds: {_yaml(columns.start)}",
            *([f"    end_seconds: {_yaml(columns.end)}"] if columns.end else []),
            *([f"    duration_seconds: {_yaml(columns.duration)}"]
              if columns.duration and not columns.end else []),
            f"    start_tr: {_yaml(columns.start_tr if trs else None)}",
            f"    end_tr: {_yaml(columns.end_tr if trs else None)}",
        ]  # fmt: skip
        return lines

    def _bold(self) -> list[str]:
        layout, extras = self._layout, find_extras(self._layout, self._files, self._headers)
        lines = ["bold:", f"  files: {_yaml(layout.pattern)}"]
        for other in self._others[:NAMED]:
            lines.append(f"  # also found, {len(other.subjects)} subjects: {other.pattern}")
        if layout.dataset:
            lines.append(f"  dataset: {_yaml(layout.dataset)}")
        if layout.missing:
            some = ", ".join(f"{subject} {run}" for subject, run in layout.missing[:NAMED])
            more = ", ..." if len(layout.missing) > NAMED else ""
            self._found.append(f"{len(layout.missing)} runs that subjects lack: {some}{more}")
            lines.append(f"  missing_runs: allow  # (?) lacking: {some}{more}")
        if extras.confounds:
            self._found.append(f"confounds: {extras.confounds}")
            lines += [f"  confounds: {_yaml(extras.confounds)}",
                      "  # Null columns: the six motion parameters. Or, of fMRIPrep:",
                      "  # confound_strategy: [motion, wm_csf, compcor, high_pass]",
                      "  # scrub_fd: 0.5"]  # fmt: skip
        if extras.masks:
            lines.append(f"  mask: {_yaml(extras.masks)}  # or vote")
        if extras.regions:
            lines.append(f"  regions: {_yaml(extras.regions)}")
        if extras.regions and extras.names:
            lines.append(f"  region_names: {_yaml(extras.names)}")
        if not any("preproc" in p or "space-" in p for p in (layout.pattern,)):
            lines.append("  detrend: true  # (?) false, where scans are cleaned already")
        return lines

    def _features(self) -> list[str]:
        shown = self._shown
        lines = ["features:"]
        if shown.films and shown.picture:
            lines.append("  video: {height: 36, width: 64, frame_skip: 8}")
        if shown.films:
            lines.append("  audio: {kind: mel}  # or codes, with EnCodec's weights on this machine")
        if shown.words or shown.sheet:
            lines.append("  text: {encoder: lsa, dimensions: 50}  # or a sentence encoder's folder")
        return lines

    def _split(self) -> list[str]:
        runs = self._layout.runs
        if len(runs) == 1:
            return ["split: {scheme: blocks}  # tests on the last part of the run"]
        everyone = set(self._layout.subjects)
        complete = [
            run
            for run in runs
            if everyone == {who for who, own in self._layout.files if own == run}
        ]
        test = (complete or runs)[-1]
        return [
            "split:",
            "  scheme: runs  # or leave-one-run-out",
            f"  test_runs: [{_yaml(test.name)}]",
        ]


def _headers(layout: Layout) -> list[Header]:
    paths = list(dict.fromkeys(layout.files.values()))
    step = max(1, len(paths) // LOOKED_AT)
    return [read_header(path) for path in paths[::step]]


def find_extras(layout: Layout, files: Sequence[Path], headers: Sequence[Header]) -> Extras:
    """Return what goes with the scans of a layout: confounds, masks, an atlas.

    Parameters
    ----------
    layout : Layout
    files : sequence of Path
        Of the whole folder, relative to it.
    headers : sequence of Header
        Of some scans.
    """
    names = {path.as_posix() for path in files}
    stem = re.sub(r"(_space-.*|_desc-.*|_hemi-.*|_bold.*)$", "", layout.pattern)

    def pattern(*ends: str) -> str:
        """Return the first pattern that fits a file for each of the scans."""
        for end in ends:
            regex = re.compile(re.sub(r"\\\{[a-z]+\\\}", "[^/]+", re.escape(stem + end)))
            if any(regex.fullmatch(name) for name in names):
                return stem + end
        return ""

    space = re.search(r"_space-[A-Za-z0-9]+(_res-[A-Za-z0-9]+)?", layout.pattern)
    mask = pattern(f"{space[0] if space else ''}_desc-brain_mask.nii.gz")
    confounds = pattern("_desc-confounds_timeseries.tsv", "_desc-confounds_regressors.tsv",
                        "_mcparams.txt", "_motion.1D")  # fmt: skip
    grid = next((header.grid for header in headers if header.grid), ())
    likely = [path for path in files if ATLAS.search(path.name)]
    atlases = [p.as_posix() for p in likely if p.name.lower().endswith(scans.VOLUMES)]
    tables = [p.as_posix() for p in likely if p.suffix == ".tsv"]
    one = atlases[0] if len(atlases) == 1 and grid else ""
    return Extras(confounds, mask if grid else "", one, tables[0] if len(tables) == 1 else "")


def _name(folder: Path) -> str:
    text = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name).strip("-._")
    return text[:64] or "study"


def _yaml(value: object) -> str:
    """Return a value as YAML in a line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()
