"""A fold's reconstructions: by what knows nothing of a TR, and by what its scans say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from giblet_hpc.evaluation import decoding, matching
from giblet_hpc.evaluation.blocks import is_made
from giblet_hpc.evaluation.prediction import mean_figures, read_figures, score_bottleneck
from giblet_hpc.files import read_json, write_json
from giblet_hpc.splits import Block, Fold
from giblet_hpc.training.feed import StudyArrays
from giblet_hpc.training.predictor import Predictor
from giblet_hpc.training.world import World

CONTROLS, DECODED, DECODER = "reconstruction_controls.json", "decoded.json", "decoder.npz"
SCANS = "scans"


def write_controls(
    predictor: Predictor, blocks: Sequence[Block], folder: Path, world: World
) -> None:
    """Write the figures of the training mean and of the TR before, where they are not there yet.

    Parameters
    ----------
    predictor : Predictor
        Of which only the form of the reconstructions matters.
    blocks : sequence of Block
        Test TRs; a block's first TR, which has none before it, is left out.
    folder : Path
    world : World
    """
    if is_made(folder / CONTROLS, world):
        return
    sums: dict[str, dict[str, dict[str, float]]] = {}
    trs = 0.0
    for number, (block, rows) in enumerate(_parts(predictor, blocks)):
        if number % world.size != world.rank:
            continue
        count = float(block.trs - 1)
        for kind, figures in _controls(predictor, rows).items():
            for name, value in figures.items():
                own = sums.setdefault(kind[0], {}).setdefault(kind[1], {})
                own[name] = own.get(name, 0.0) + value * count
        trs += count
    everyone: list[dict[str, Any]] = world.gather({"sums": sums, "trs": trs})
    if world.is_main:
        kinds = dict.fromkeys(kind for rank in everyone for kind in rank["sums"])
        every = {
            kind: mean_figures([{**rank, "sums": rank["sums"].get(kind, {})} for rank in everyone])
            for kind in kinds
        }
        write_json(folder / CONTROLS, every)
    world.wait()


def _parts(
    predictor: Predictor, blocks: Sequence[Block]
) -> Iterator[tuple[Block, Mapping[str, NDArray[Any]]]]:
    """Yield stretches of TRs that overlap by one, with their rows as models see them."""
    length = max(2, predictor.config.train.window_trs)
    for block in blocks:
        for start in range(block.start, block.stop - 1, length - 1):
            part = Block(block.run, start, min(block.stop, start + length))
            rows = {
                name: predictor.reader.stimulus(block.run, name)[part.start : part.stop]
                for name in predictor.reconstructed
            }
            yield part, rows


@torch.inference_mode()
def _controls(
    predictor: Predictor, rows: Mapping[str, Any]
) -> dict[tuple[str, str], dict[str, float]]:
    """Return figures by control and modality, of all rows but the first."""
    positions = predictor.positions(None)
    empty = torch.zeros(1, 1, predictor.config.model.bottleneck, device=predictor.device)
    made = predictor.reconstruct(empty, positions)
    found = {}
    for name, modality in predictor.reconstructed.items():
        every = torch.from_numpy(rows[name]).to(predictor.device)[None]
        now, before = every[:, 1:], every[:, :-1]
        mask = torch.ones(now.shape[:2], dtype=torch.bool, device=predictor.device)
        scores = modality.control_scores(
            now, before, mask, positions=positions.get(name), made=made[name]
        )
        for kind, figures in scores.items():
            found[kind, name] = {key: float(value) for key, value in figures.items()}
    return found


def write_decoded(
    predictor: Predictor, fold: Fold, study: StudyArrays, folder: Path, world: World
) -> None:
    """Fit the map from scans to the bottleneck, and write what it decodes of the test TRs.

    Parameters
    ----------
    predictor : Predictor
        With the weights to decode with.
    fold : Fold
        The map is fitted on training and validation TRs.
    study : StudyArrays
    folder : Path
        Receives ``decoder.npz`` and ``decoded.json``.
    world : World

    Raises
    ------
    DataError
        When there are too few training TRs.
    """
    if is_made(folder / DECODED, world):
        return
    trained, tr = (*fold.train, *fold.validation), predictor.config.study.tr
    scans = decoding.scans_after(tr)
    if not is_made(folder / DECODER, world):
        alike = decoding.similarity(study, trained, trained, scans=scans, world=world)[0]
        wanted = decoding.bottleneck(predictor, trained, world)
        if world.is_main:
            decoding.fit(alike, wanted, trained, scans=scans).save(folder / DECODER)
        world.wait()
    decoder = decoding.load_decoder(folder / DECODER)
    alike = decoding.similarity(study, fold.test, trained, scans=scans, world=world)[0]
    made = decoder(alike)
    figures = score_bottleneck(predictor, fold.test, made, world)
    shown = decoding.bottleneck(predictor, fold.test, world)
    trs = matching.segment_trs(tr)
    found = matching.matched(
        matching.products(made - decoder.mean, shown - decoder.mean),
        matching.segments(fold.test, trs), trs,
    )  # fmt: skip
    if world.is_main:
        record = {"figures": figures, "matching": found, "penalty": decoder.penalty}
        write_json(folder / DECODED, record)
    world.wait()


def of_fold(folder: Path, labels: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Return what the report says of a fold's reconstructions.

    Parameters
    ----------
    folder : Path
    labels : mapping
        What each figure says, in words, by modality.

    Returns
    -------
    dict
        ``reconstruction``: rows with ``figure`` and, as far as they are known, ``model``,
        ``scans``, ``mean`` and ``previous``; ``decoded``: how often the right stretch is found
        among what is decoded from scans.
    """
    columns = {"model": read_figures(folder)}
    decoded = read_json(folder / DECODED) if (folder / DECODED).is_file() else {}
    if decoded:
        columns[SCANS] = decoded["figures"]
    if (folder / CONTROLS).is_file():
        columns |= read_json(folder / CONTROLS)
    rows = []
    for name, own in labels.items():
        for key, label in own.items():
            found = {kind: figures.get(name, {}).get(key) for kind, figures in columns.items()}
            if found["model"] is not None:
                rows.append({"figure": f"{name}: {label}", **found})
    return {"reconstruction": rows, "decoded": decoded.get("matching", {})}
