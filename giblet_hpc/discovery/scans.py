"""Which layout of scans a folder has: one pattern of files, its subjects and its runs."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from giblet_hpc.study_files import natural

VOLUMES = (".nii.gz", ".nii")
SUFFIXES = (".dtseries.nii", ".func.gii", *VOLUMES, ".h5", ".hdf5", ".npy", ".npz")
ENTITIES = {"sub": "subject", "ses": "session", "task": "task", "run": "run", "hemi": "hemi"}
FORMS = ("MNI", "preproc", "fsaverage", "fsLR", "91k", "T1w")
"""Preferred forms of scans, the first the most."""
NO_SCANS = re.compile(r"mask|atlas|region|dseg|aseg|parcel|label|boldref|probseg|best_r|T1w\.|xfm")
SUBJECT = re.compile(
    r"(?<![A-Za-z0-9])((?:sub|subj|subject|participant|[sSpP])[-_]?)(\d+)(?![0-9])"
)
NOT_SHOWN = ("rest", "restingstate", "localizer", "localiser")
MOST_FILES = 200_000


@dataclass(frozen=True)
class FoundRun:
    """A run by the parts of its files' names."""

    label: str = ""
    task: str = ""
    session: str = ""

    @property
    def name(self) -> str:
        """What the run is called in the config."""
        parts = [f"ses-{self.session}" if self.session else "", self.task]
        number = f"run-{self.label}" if self.label.isdigit() else self.label
        return "_".join(part for part in (*parts, number) if part) or "run1"


@dataclass(frozen=True)
class Layout:
    """Files of scans that one pattern describes."""

    pattern: str
    files: dict[tuple[str, FoundRun], Path] = field(default_factory=dict)
    """By subject and run; of a surface the left hemisphere."""
    dataset: str = ""
    """Pattern of the arrays inside the files, where each run is one."""

    @property
    def file_a_run(self) -> bool:
        """Whether each run has a file, or an array, of its own."""
        text = self.pattern + self.dataset
        return "{run}" in text or "{task}" in text

    @property
    def subjects(self) -> list[str]:
        """Names of the subjects."""
        return sorted({subject for subject, _ in self.files}, key=natural)

    @property
    def runs(self) -> list[FoundRun]:
        """The runs, in natural order."""
        return sorted({run for _, run in self.files}, key=lambda run: natural(run.name))

    @property
    def missing(self) -> list[tuple[str, str]]:
        """Subjects and names of runs that they lack."""
        return [
            (subject, run.name)
            for subject in self.subjects
            for run in self.runs
            if (subject, run) not in self.files
        ]


def list_files(folder: Path) -> list[Path]:
    """List a folder's files, relative to it, without hidden ones; at most so many."""
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n != "sourcedata"
                            and not n.endswith(".zarr"))  # fmt: skip
        relative = Path(place).relative_to(folder)
        found += [relative / name for name in sorted(names) if not name.startswith(".")]
        if len(found) > MOST_FILES:
            break
    return found


def find_layouts(folder: Path, files: Iterable[Path]) -> list[Layout]:
    """Return the layouts of scans in a folder, the one to use first.

    Parameters
    ----------
    folder : Path
    files : iterable of Path
        From `list_files`.
    """
    scans = [path for path in files if path.name.lower().endswith(SUFFIXES)]
    scans = [p for p in scans if "_bold." in p.name or not NO_SCANS.search(p.name)]
    bids = [path for path in scans if re.search(r"(^|_)sub-[^_]+_.*bold\.", path.name)]
    found = _bids(folder, bids) if bids else _plain(folder, scans)
    return sorted(found, key=_rank)


def _rank(layout: Layout) -> tuple[int, int, str]:
    form = next((n for n, word in enumerate(FORMS) if word in layout.pattern), len(FORMS))
    return (-len(layout.subjects) * len(layout.runs) // 2, form, layout.pattern)


def _bids(folder: Path, scans: Sequence[Path]) -> list[Layout]:
    groups: dict[str, list[tuple[dict[str, str], Path]]] = {}
    for path in scans:
        held = path.name.lower().endswith((".h5", ".hdf5"))
        entities = dict(re.findall(r"(?:^|_)(sub|ses|task|run|hemi)-([^_.]+)", path.name))
        if held:
            # Such a file holds many runs: its task names the file, not a run.
            entities = {"sub": entities["sub"]}
        pattern = path.as_posix()
        for key, value in entities.items():
            pattern = re.sub(rf"(?<![A-Za-z0-9]){key}-{re.escape(value)}(?![A-Za-z0-9])",
                             f"{key}-{{{ENTITIES[key]}}}", pattern)  # fmt: skip
        groups.setdefault(pattern, []).append((entities, path))
    layouts = [_bids_layout(folder, pattern, group) for pattern, group in groups.items()]
    return [layout for layout in layouts if layout.files]


def _bids_layout(
    folder: Path, pattern: str, group: Sequence[tuple[dict[str, str], Path]]
) -> Layout:
    if pattern.lower().endswith((".h5", ".hdf5")):
        return _held(folder, pattern, [(e["sub"], path) for e, path in group])
    counted = Counter((e["sub"], e.get("task"), e.get("run"), e.get("hemi")) for e, _ in group)
    # Where a subject has one run twice, it is the session that tells them apart.
    by_session = max(counted.values()) > 1
    files: dict[tuple[str, FoundRun], Path] = {}
    for entities, path in group:
        if entities.get("task", "") in NOT_SHOWN or entities.get("hemi") == "R":
            continue
        run = FoundRun(entities.get("run", ""), entities.get("task", ""),
                       entities.get("ses", "") if by_session else "")  # fmt: skip
        files[entities["sub"], run] = folder / path
    return Layout(pattern, files)


def _held(folder: Path, pattern: str, group: Sequence[tuple[str, Path]]) -> Layout:
    """Return the layout of files that hold an array for each run."""
    files: dict[tuple[str, FoundRun], Path] = {}
    dataset = ""
    for subject, path in group:
        for name in _arrays(folder / path):
            match = re.fullmatch(r"(ses-[^_]+_)?(task-)?(.+)", name)
            assert match is not None
            dataset = f"{'ses-*_' if match[1] else ''}{match[2] or ''}{{run}}"
            files[subject, FoundRun(label=match[3])] = folder / path
    return Layout(pattern, files, dataset)


def _arrays(path: Path) -> list[str]:
    """Return the names of the arrays of an HDF5 file; none where h5py is not installed."""
    try:
        import h5py

        with h5py.File(path, "r") as file:
            return [str(name) for name in file]
    except (ImportError, OSError):
        return []


def _plain(folder: Path, scans: Sequence[Path]) -> list[Layout]:
    """Return layouts of files with a number of a subject in their names, such as s1_run2.nii."""
    groups: dict[tuple[str, ...], list[tuple[str, str, Path]]] = {}
    for path in scans:
        text = path.as_posix()
        if match := SUBJECT.search(text):
            number = match[2]
            rest = re.sub(rf"(?<![0-9]){number}(?![0-9])", "{subject}", text[: match.end()])
            rest += text[match.end() :].replace(f"{match[1]}{number}", f"{match[1]}{{subject}}")
            suffix = next(s for s in SUFFIXES if text.lower().endswith(s))
            groups.setdefault((suffix, path.parent.as_posix().replace(number, "*")), []).append(
                (number, rest, path)
            )
    return [_plain_layout(folder, group) for group in groups.values()]


def _plain_layout(folder: Path, group: Sequence[tuple[str, str, Path]]) -> Layout:
    rests = sorted({rest for _, rest, _ in group})
    before, after = _around(rests)
    pattern = rests[0] if len(rests) == 1 else f"{before}{{run}}{after}"
    files = {}
    for number, rest, path in group:
        label = "" if len(rests) == 1 else rest[len(before) : len(rest) - len(after)]
        files[number, FoundRun(label=label)] = folder / path
    return Layout(pattern, files)


def _around(texts: Sequence[str]) -> tuple[str, str]:
    """Return what all texts begin and end with, up to where a whole word of each differs."""
    turned = [text[::-1] for text in texts]
    # Character by character is what is wanted here.
    before = os.path.commonprefix(texts)  # noqa: RUF071
    after = os.path.commonprefix(turned)[::-1]  # noqa: RUF071
    before = re.sub(r"[A-Za-z0-9]*$", "", before)
    after = re.sub(r"^[A-Za-z0-9]*", "", after)
    return before, after
