"""Networks from and to the codes of a sound codec."""

from __future__ import annotations

import torch

from giblet_hpc.models.codes import CodeDecoder, CodeEncoder

BOOKS = torch.arange(2 * 5 * 3, dtype=torch.float32).reshape(2, 5, 3)


def test_what_codes_stand_for_is_the_sum_of_their_vectors() -> None:
    encoder = CodeEncoder(
        BOOKS, mean=torch.zeros(3), deviation=torch.ones(3), code_width=4, width=7
    )
    codes = torch.tensor([[[[1, 2], [4, 0]]]], dtype=torch.int16)  # (B, W, Q, C)
    seen = []
    encoder.columns.join.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert encoder(codes).shape == (1, 1, 7)
    vectors = torch.stack([BOOKS[0, 1] + BOOKS[1, 4], BOOKS[0, 2] + BOOKS[1, 0]])
    mean, spread = seen[0][0, 0, :3], seen[0][0, 0, 3:6]
    torch.testing.assert_close(mean, vectors.mean(0))
    torch.testing.assert_close(spread, (vectors.var(0, unbiased=False) + 1e-4).sqrt())


def test_logits_start_at_how_often_codes_are() -> None:
    torch.manual_seed(0)
    share = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    decoder = CodeDecoder(share.log(), frames=12, bottleneck=6, width=5)
    logits = decoder(torch.zeros(2, 3, 6), torch.tensor([0, 5, 11]))
    assert logits.shape == (2, 3, 3, 2, 3)
    torch.testing.assert_close(logits.softmax(-1).mean((0, 1, 2)), share, atol=0.05, rtol=0)


def test_frames_of_a_tr_differ_by_their_place() -> None:
    torch.manual_seed(0)
    decoder = CodeDecoder(torch.zeros(1, 4), frames=16, bottleneck=6, width=5)
    bottleneck = torch.randn(1, 1, 6)
    every = decoder(bottleneck, torch.arange(16))
    some = decoder(bottleneck, torch.tensor([3, 9]))
    torch.testing.assert_close(some, every[:, :, [3, 9]])
    assert not torch.equal(every[:, :, 0], every[:, :, 15])
