"""A look at what a checkpoint makes of some windows: pictures, sounds, films, figures, a page."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from giblet_hpc.evaluation.canvas import new_figure
from giblet_hpc.evaluation.metrics import pearson
from giblet_hpc.evaluation.prediction import reconstruction_scores
from giblet_hpc.files import write_json, write_text, write_with
from giblet_hpc.splits import Block
from giblet_hpc.training.feed import StudyArrays
from giblet_hpc.training.predictor import Predictor
from giblet_hpc.training.windows import Window, covering_windows

TAGS = {
    ".png": '<img src="{0}" alt="{1}">',
    ".mp4": '<video src="{0}" title="{1}" controls loop muted></video>',
    ".wav": '<audio src="{0}" title="{1}" controls></audio>',
}
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 1rem auto;
  padding: 0 1rem; }}
img, video {{ max-width: 100%; height: auto; vertical-align: top; }}
figure {{ display: inline-block; vertical-align: top; margin: .5rem .5rem .5rem 0; }}
figcaption {{ font-size: .85rem; }}
table {{ border-collapse: collapse; font-size: .9rem; }}
th, td {{ text-align: left; padding: .15rem .7rem .15rem 0; border-bottom: 1px solid #8884; }}
</style>
<h1>{title}</h1>
<p>{said}</p>
{body}
</html>
"""


def choose_windows(blocks: Sequence[Block], length: int, count: int) -> list[Window]:
    """Return windows that are spread evenly over some blocks."""
    every = covering_windows(blocks, length)
    whole = [one for one in every if one.block.stop - one.start >= length]
    every = whole or every
    steps = np.linspace(0, len(every) - 1, min(count, len(every)))
    return [every[number] for number in dict.fromkeys(round(step) for step in steps)]


@torch.inference_mode()
def look(
    predictor: Predictor,
    study: StudyArrays,
    windows: Sequence[Window],
    folder: Path,
    *,
    said: Mapping[str, Any],
    note: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Write what a model makes of some windows; return the figures.

    Parameters
    ----------
    predictor : Predictor
        With the weights to look at.
    study : StudyArrays
    windows : sequence of Window
    folder : Path
        Receives for each window a scatter of scans against predictions (.png), each modality and
        its reconstruction (.mp4, .wav, .npy), the predicted scans (.npy); and ``figures.json``,
        ``index.html``.
    said : mapping
        Facts for the page and for the figures.
    note : callable
        Called with the number of windows that are done.

    Returns
    -------
    dict
        ``samples``: for each window ``run``, ``tr`` (its first), ``r`` of each subject (mean over
        voxels of r over the window's TRs), reconstruction figures and ``files``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for number, window in enumerate(windows, 1):
        stem = folder / f"sample-{number:02d}"
        samples.append(_sample(predictor, study, window, stem))
        note(number)
    figures = {**said, "samples": samples}
    write_json(folder / "figures.json", figures)
    write_text(folder / "index.html", page(figures))
    return figures


def _sample(predictor: Predictor, study: StudyArrays, window: Window, stem: Path) -> dict[str, Any]:
    batch = predictor.reader([window])
    positions = predictor.whole_positions()
    output = predictor.forward(predictor.model, batch, positions)
    length, target = window.block.stop - window.start, batch.bold.shape[1]
    length = min(length, target)
    files, tr = [], predictor.config.study.tr
    for name, modality in predictor.reconstructed.items():
        shown = batch.stimulus[name][0, -target:][:length].cpu()
        made = output.reconstruction[name][0, :length].float().cpu()
        files += modality.save(
            stem.with_name(f"{stem.name}-{name}"), shown, {"reconstructed": made}, tr=tr
        )
    predicted = output.bold[0, :length].float().transpose(0, 1).cpu().numpy()
    scans = batch.bold[0, :length].transpose(0, 1).cpu().numpy()
    valid = batch.valid[0, :length].T.cpu().numpy()
    path = stem.with_name(f"{stem.name}-scans.npy")
    write_with(path, lambda handle: np.save(handle, predicted))
    drawn = stem.with_name(f"{stem.name}-scans.png")
    figure = _scatter(scans[0], predicted[0], study.subjects[0])
    write_with(drawn, lambda handle: figure.savefig(handle, format="png", dpi=110))
    return {
        "run": window.block.run, "tr": window.start, "trs": length,
        "r": _r(scans, predicted, valid, study.subjects),
        "reconstruction": reconstruction_scores(predictor, output.reconstruction, batch, positions),
        "files": [file.name for file in [drawn, *files, path]],
    }  # fmt: skip


def _r(
    scans: NDArray[Any], predicted: NDArray[Any], valid: NDArray[Any], subjects: Sequence[str]
) -> dict[str, float]:
    found = {}
    for number, name in enumerate(subjects):
        own, there = predicted[min(number, len(predicted) - 1)], valid[number]
        if there.sum() > 2:
            r = pearson(own, scans[number], there, [slice(0, len(there))])
            found[name] = float(np.mean(r))
    return found


def _scatter(scans: NDArray[Any], predicted: NDArray[Any], subject: str) -> Any:
    figure = new_figure(4, 3.4)
    axis = figure.subplots()
    axis.scatter(scans.ravel(), predicted.ravel(), s=2, alpha=0.3)
    axis.set_xlabel(f"scan of {subject} (SD)")
    axis.set_ylabel("prediction (SD)")
    return figure


def page(figures: Mapping[str, Any]) -> str:
    """Return a page that shows what lies beside it."""
    parts = []
    for number, sample in enumerate(figures["samples"], 1):
        r = ", ".join(f"{name} {value:.3f}" for name, value in sample["r"].items())
        parts.append(f"<h2>{html.escape(sample['run'])}, TRs {sample['tr']} to "
                     f"{sample['tr'] + sample['trs'] - 1}</h2>")  # fmt: skip
        parts.append(f"<p>r over these TRs, mean over voxels: {html.escape(r)}</p>")
        for name in sample["files"]:
            tag = TAGS.get(Path(name).suffix)
            if tag is not None:
                what = Path(name).stem.removeprefix(f"sample-{number:02d}-").replace("-", ", ")
                shown = tag.format(html.escape(name), html.escape(what))
                parts.append(
                    f"<figure>{shown}<figcaption>{html.escape(what)}</figcaption></figure>"
                )
    facts = {key: value for key, value in figures.items() if key != "samples" and value != ""}
    said = "; ".join(f"{key}: {value}" for key, value in facts.items())
    title = html.escape(f"{figures['run']}: step {figures['step']}")
    return PAGE.format(title=title, said=html.escape(said), body="\n".join(parts))
