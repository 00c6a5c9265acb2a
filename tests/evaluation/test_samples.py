"""Which test TRs the report shows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from giblet_hpc.evaluation.samples import sample_trs
from giblet_hpc.splits import Block


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), min_size=1, max_size=4),
       st.integers(1, 12))  # fmt: skip
def test_samples_are_different_trs_inside_their_blocks(
    spans: list[tuple[int, int]], count: int
) -> None:
    blocks = tuple(Block(f"run{n}", start, start + trs) for n, (start, trs) in enumerate(spans))
    total = sum(block.trs for block in blocks)
    found = sample_trs(blocks, count)
    assert len(found) == min(count, total)
    rows = [row for _, _, row in found]
    assert rows == sorted(rows)
    before = {block: sum(b.trs for b in blocks[:n]) for n, block in enumerate(blocks)}
    for block, tr, row in found:
        assert block.start <= tr < block.stop
        assert row == before[block] + tr - block.start
