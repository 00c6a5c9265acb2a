"""A page of lesions: a table, and the decoded stimulus before and after, side by side."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from giblet_hpc.evaluation.lesions import blocks_of
from giblet_hpc.evaluation.look import PAGE, TAGS
from giblet_hpc.files import write_json, write_text
from giblet_hpc.training.predictor import Predictor
from giblet_hpc.training.windows import Window

Example = tuple[str, str, NDArray[np.float32]]
"""End of files' names, name, and what is decoded, (trs, Z)."""
Captions = Mapping[str, Mapping[str, Sequence[str]]]
HEADINGS = ("silent", "size", "modality", "moves", "random ones move", "p")


def write(
    folder: Path,
    record: dict[str, Any],
    windows: Sequence[Window],
    intact: NDArray[np.float32],
    examples: Sequence[Example],
    *,
    predictor: Predictor,
    captions: Captions,
) -> None:
    """Write ``lesions.json``, ``index.html`` and the examples' files.

    Parameters
    ----------
    folder : Path
    record : dict
        From `giblet_hpc.stages.lesion`; gets the examples' files.
    windows : sequence of Window
        Those to show: the first of those that ``intact`` is of.
    intact : ndarray, shape (trs, Z)
    examples : sequence
    predictor : Predictor
    captions : mapping
        What is said of each TR, by modality and run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = {"shown": "shown", "decoded": "decoded"} | {end: name for end, name, _ in examples}
    shown, row = [], 0
    for number, window in enumerate(windows, 1):
        (block,) = blocks_of([window], predictor.config.train.window_trs)
        rows = slice(row, row + block.trs)
        row = rows.stop
        bottlenecks = {"decoded": intact[rows], **{end: own[rows] for end, _, own in examples}}
        stem = folder / f"sample-{number:02d}"
        files, words = _window(predictor, window, bottlenecks, captions, stem)
        shown.append({
            "run": block.run, "tr": block.start, "trs": block.trs,
            "files": [
                {"file": file.name, "of": names[_end(file, names)]} for file in files
            ],
            "words": {names[end]: said for end, said in words.items()},
        })  # fmt: skip
    record["samples"] = shown
    write_json(folder / "lesions.json", record)
    write_text(folder / "index.html", page(record))


def _end(file: Path, names: Mapping[str, str]) -> str:
    """Return which of the ends of names a file has; codes of a sound have one more word."""
    stem = file.stem.removesuffix("-codes")
    return max((end for end in names if stem.endswith(f"-{end}")), key=len)


@torch.inference_mode()
def _window(
    predictor: Predictor,
    window: Window,
    bottlenecks: Mapping[str, NDArray[np.float32]],
    captions: Captions,
    stem: Path,
) -> tuple[list[Path], dict[str, list[str]]]:
    """Write a window's files; return them, and the words nearest to what is decoded."""
    positions = predictor.whole_positions()
    batch = predictor.reader([window])
    target, count = batch.bold.shape[1], len(next(iter(bottlenecks.values())))
    made = {
        end: predictor.reconstruct(torch.from_numpy(own).to(predictor.device)[None], positions)
        for end, own in bottlenecks.items()
    }
    files: list[Path] = []
    words: dict[str, list[str]] = {}
    for name, modality in predictor.reconstructed.items():
        rows = batch.stimulus[name][0, -target:][:count].cpu()
        own = {end: values[name][0].float().cpu() for end, values in made.items()}
        files += modality.save(
            stem.with_name(f"{stem.name}-{name}"), rows, own, tr=predictor.config.study.tr
        )
        if name in captions:
            own_rows = [predictor.reader.stimulus(run, name)[:] for run in captions[name]]
            said = [text for texts in captions[name].values() for text in texts]
            nearest = Nearest(np.concatenate(own_rows), said)
            for end, values in {"shown": rows, **own}.items():
                words.setdefault(end, []).append(nearest(values.numpy()))
    return files, words


class Nearest:
    """Finds the TR of the study whose row is most like given ones, and what is said of it.

    Parameters
    ----------
    rows : ndarray, shape (trs, columns)
        Of the whole study.
    said : sequence of str
        Of each TR.
    """

    def __init__(self, rows: NDArray[np.floating], said: Sequence[str]) -> None:
        from sklearn.preprocessing import normalize

        self._mean, self._said = rows.mean(axis=0), said
        self._rows = normalize(rows - self._mean)

    def __call__(self, rows: NDArray[np.floating]) -> str:
        """Return what is said of the TR that is most like the mean of some."""
        # How long their mean is does not change which is most like it.
        return self._said[int((self._rows @ (rows - self._mean).mean(axis=0)).argmax())]


def page(record: Mapping[str, Any]) -> str:
    """Return a page that shows what lies beside it."""
    parts = [_table(record["lesions"])]
    for sample in record["samples"]:
        last = sample["tr"] + sample["trs"] - 1
        parts.append(f"<h2>{html.escape(sample['run'])}, TRs {sample['tr']} to {last}</h2>")
        for name, said in sample["words"].items():
            parts.append(f"<p><b>{html.escape(_label(name))}</b>: "
                         f"{html.escape('; '.join(said))}</p>")  # fmt: skip
        for kind in dict.fromkeys(Path(one["file"]).suffix for one in sample["files"]):
            own = [one for one in sample["files"] if Path(one["file"]).suffix == kind]
            if kind in TAGS:
                parts.append(f"<div>{''.join(map(_figure, own))}</div>")
    said = (
        f"Step {record['step']}, {record['trs']} test TRs, decoded from "
        f"{'scans' if record['of'] == 'voxels' else 'the stimulus'}; each lesion against "
        f"{record['random']} random ones of the same size. How much a reconstruction moves is its "
        "mean squared change as a multiple of its own variance over these TRs; p is the share of "
        "random lesions, and this one, that move it as much or more. Words are those of the TR "
        "that is most like what is decoded."
    )
    title = html.escape(f"{record['run']}: lesions")
    return PAGE.format(title=title, said=html.escape(said), body="\n".join(parts))


def _figure(one: Mapping[str, str]) -> str:
    name = html.escape(_label(one["of"]))
    tagged = TAGS[Path(one["file"]).suffix].format(html.escape(one["file"]), name)
    return f"<figure>{tagged}<figcaption>{name}</figcaption></figure>"


def _label(name: str) -> str:
    return name if name in ("shown", "decoded") else f"without {name}"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    figures = list(dict.fromkeys(key for row in rows for key in row["figures"]))
    head = [*HEADINGS, *figures]
    lines = ["<table><thead><tr>" + "".join(f"<th>{html.escape(h)}</th>" for h in head)
             + "</tr></thead><tbody>"]  # fmt: skip
    for row in rows:
        cells = [row["lesion"], str(row["size"]), row["modality"], f"{row['moved']:.3f}",
                 _number(row["moved_random"]), _number(row["moved_p"])]  # fmt: skip
        for key in figures:
            found = row["figures"].get(key)
            cells.append(
                ""
                if found is None
                else f"{found['before']:.3f} to {found['after']:.3f}"
                + ("" if found["after_random"] is None else f" ({found['after_random']:.3f})")
            )
        lines.append("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + "</tr>")
    return "\n".join([*lines, "</tbody></table>",
                      "<p>Figures: before to after (after random lesions).</p>"])  # fmt: skip


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
