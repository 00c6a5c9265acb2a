"""The words of annotated segments: embeddings by a transformers encoder, or counted words.

Word counts are what the store holds for `lsa`; TF-IDF and SVD are fitted later, on the training
TRs of each fold.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.config.features import TextFeatures
from giblet_hpc.errors import DataError
from giblet_hpc.log import progress
from giblet_hpc.timing import Segment, segment_overlap

BATCH = 32


def vocabulary(texts: Sequence[str]) -> list[str]:
    """Return the words of ``texts`` (two letters or more, English stop words left out)."""
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(stop_words="english")
    try:
        counter.fit(texts)
    except ValueError:
        raise DataError(
            "the annotations hold no words besides stop words",
            hint="check study.annotations.text",
        ) from None
    return [str(word) for word in counter.get_feature_names_out()]


def word_counts(
    segments: Sequence[Segment], trs: int, words: Sequence[str], *, forward_fill: bool
) -> NDArray[np.float32]:
    """Count each word at each TR, segments weighted by the share of the TR they cover.

    Returns
    -------
    ndarray, shape (trs, len(words)), float32
    """
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(vocabulary=list(words))
    counts = counter.transform([segment.text for segment in segments])
    overlap = segment_overlap(segments, trs)
    rows = np.asarray(overlap @ counts.toarray().astype(np.float32), dtype=np.float32)
    return _filled(rows, np.asarray(overlap.any(axis=1))) if forward_fill else rows


def place_embeddings(
    segments: Sequence[Segment],
    embeddings: NDArray[np.float32],
    trs: int,
    *,
    slots: int,
    forward_fill: bool,
) -> NDArray[np.float32]:
    """Lay the embeddings of the segments that overlap a TR beside each other.

    Parameters
    ----------
    segments : sequence of Segment
    embeddings : ndarray, shape (segments, width)
    trs : int
    slots : int
        Segments kept at a TR, the earliest first; empty slots are zero.
    forward_fill : bool
        Whether TRs without a segment repeat the TR before.

    Returns
    -------
    ndarray, shape (trs, slots * width), float32
    """
    overlap = segment_overlap(segments, trs) > 0
    width = embeddings.shape[1]
    rows = np.zeros((trs, slots, width), dtype=np.float32)
    for tr in range(trs):
        found = np.flatnonzero(overlap[tr])[:slots]
        rows[tr, : len(found)] = embeddings[found]
    flat = rows.reshape(trs, slots * width)
    return _filled(flat, np.asarray(overlap.any(axis=1))) if forward_fill else flat


def _filled(rows: NDArray[np.float32], covered: NDArray[np.bool_]) -> NDArray[np.float32]:
    source = np.maximum.accumulate(np.where(covered, np.arange(len(rows)), -1))
    filled = rows[np.maximum(source, 0)]
    filled[source < 0] = 0
    return filled


def _pretrained(loader: Any, name: str) -> Any:
    try:
        return loader.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError):
        raise DataError(
            f"text encoder not found on this machine: {name}",
            hint=f"on a machine with internet: hf download {name}; or set features.text.encoder "
            "to a folder or to `lsa`; the jobs themselves never go online",
        ) from None


def embedding_width(options: TextFeatures) -> int:
    """Return the width of the encoder's embeddings, from its config alone."""
    from transformers import AutoConfig

    return int(_pretrained(AutoConfig, options.encoder).hidden_size)


def pooling_of(options: TextFeatures) -> str:
    """Return `cls` or `mean`: the config's choice, else what the model's own files say."""
    if options.pooling != "auto":
        return options.pooling
    from transformers.utils import cached_file

    folder = Path(options.encoder)
    found: Any = folder / "1_Pooling" / "config.json"
    if not folder.is_dir():
        found = cached_file(
            options.encoder,
            "1_Pooling/config.json",
            local_files_only=True,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    if found is None or not Path(found).is_file():
        raise DataError(
            f"{options.encoder} does not say how its token vectors are pooled",
            hint="set features.text.pooling to cls or mean, as the model's documentation says",
        )
    pooling = json.loads(Path(found).read_text())
    return "cls" if pooling.get("pooling_mode_cls_token") else "mean"


def embed(texts: Sequence[str], options: TextFeatures) -> NDArray[np.float32]:
    """Embed texts with a transformers encoder, to unit length.

    Parameters
    ----------
    texts : sequence of str
    options : TextFeatures
        Which encoder and which pooling.

    Returns
    -------
    ndarray, shape (texts, width), float32

    Raises
    ------
    DataError
        When the encoder is not on this machine.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = _pretrained(AutoTokenizer, options.encoder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = _pretrained(AutoModel, options.encoder).to(device).eval()
    pooling = pooling_of(options)
    rows = []
    starts = range(0, len(texts), BATCH)
    with torch.inference_mode():
        for start in progress(starts, label="text", total=len(starts)):
            tokens = tokenizer(
                list(texts[start : start + BATCH]),
                padding=True,
                truncation=True,
                return_tensors="pt",
            ).to(device)
            hidden = model(**tokens).last_hidden_state
            if pooling == "cls":
                pooled = hidden[:, 0]
            else:
                mask = tokens["attention_mask"][..., None]
                pooled = (hidden * mask).sum(1) / mask.sum(1)
            rows.append(torch.nn.functional.normalize(pooled.float(), dim=-1).cpu().numpy())
    return np.concatenate(rows)
