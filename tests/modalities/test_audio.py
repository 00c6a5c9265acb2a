from __future__ import annotations

import numpy as np

from giblet_hpc.modalities.audio import code_vectors

RANDOM = np.random.default_rng(0)


def test_codes_stand_for_the_sum_of_their_vectors() -> None:
    books = RANDOM.standard_normal((2, 1024, 4)).astype(np.float32)
    codes = np.array([[[3, 5], [7, 1023]]], dtype=np.int16)
    expected = [books[0, 3] + books[1, 7], books[0, 5] + books[1, 1023]]
    np.testing.assert_allclose(code_vectors(codes, books)[0], expected)
