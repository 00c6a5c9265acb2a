"""Tensors that are written in pieces are read as they were, whole or in part."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from giblet_hpc.training.pieces import (
    TYPES,
    Layout,
    Piece,
    Source,
    flat,
    merged,
    spread,
    whole,
    write_pieces,
)


def written(folder: Path, values: torch.Tensor, axis: int | None, cuts: list[int]) -> Source:
    """Write a tensor as files of its parts between ``cuts``, in an order of no meaning."""
    layouts: list[Layout] = []
    if axis is None:
        pieces = whole({"t": values})
    else:
        edges = sorted({0, values.shape[axis], *(c % (values.shape[axis] + 1) for c in cuts)})
        pieces = [
            Piece("t", values.narrow(axis, a, b - a), tuple(values.shape), axis, a)
            for a, b in zip(edges[:-1], edges[1:], strict=True)
        ]
    for number, piece in reversed(list(enumerate(pieces))):
        write_pieces(folder / str(number), [piece])
        layouts.append({"t": piece.place(str(number))})
    return Source(folder, merged(layouts))


@given(
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.sampled_from([None, 0, 1]), st.lists(st.integers(0, 7), max_size=4),
    st.sampled_from([None, 0, 1]), st.integers(0, 7), st.integers(0, 7),
)  # fmt: skip
def test_any_part_of_any_pieces(
    shape: tuple[int, int], axis: int | None, cuts: list[int], by: int | None, a: int, b: int
) -> None:
    values = torch.arange(shape[0] * shape[1], dtype=torch.float32).reshape(shape)
    with tempfile.TemporaryDirectory() as name:
        source = written(Path(name), values, axis, cuts)
        assert source.shape("t") == shape
        if by is None:
            found, expected = source.read("t"), values
        else:
            low, high = sorted((a % (shape[by] + 1), b % (shape[by] + 1)))
            found = source.read("t", by, slice(low, high))
            expected = values.narrow(by, low, high - low)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_files_are_safetensors_and_their_digest_is_right(tmp_path: Path) -> None:
    """As the library reads them: every type, no dimension, none of a dimension, no tensor."""
    tensors = {str(kind): torch.ones(2, 3).to(kind) for kind in TYPES}
    tensors |= {"scalar": torch.tensor(3.0), "none": torch.zeros(0, 4),
                "strided": torch.arange(6.0).reshape(2, 3).T}  # fmt: skip
    size, digest = write_pieces(tmp_path / "a", whole(tensors))
    content = (tmp_path / "a").read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (size, digest)
    torch.testing.assert_close(load_file(tmp_path / "a"), tensors, rtol=0, atol=0)
    write_pieces(tmp_path / "b", [])
    assert load_file(tmp_path / "b") == {}


def test_nothing_is_left_of_a_file_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Piece("t", torch.ones(2).to(torch.complex64), (2,))
    with pytest.raises(KeyError):
        write_pieces(tmp_path / "a", [broken])
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.integers(0, 100), min_size=1, max_size=30), st.integers(1, 5))
def test_ranks_write_about_as_much(sizes: list[int], ranks: int) -> None:
    names = [str(number) for number in range(len(sizes))]
    chosen = spread(names, sizes, ranks)
    assert set(chosen) == set(names)
    load = [sum(s for n, s in zip(names, sizes, strict=True) if chosen[n] == r)
            for r in range(ranks)]  # fmt: skip
    assert max(load) <= sum(sizes) / ranks + max(sizes)


def test_names() -> None:
    values = torch.ones(1)
    assert set(flat({"a.weight": values}, {3: {"step": values}})) == {
        "model/a.weight", "optimizer/3/step",
    }  # fmt: skip
