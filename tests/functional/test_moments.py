import torch

from lit_purify.functional import merge_moments, moments


def test_pieces_of_any_size_merge_to_the_whole():
    values = torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pieces = torch.stack([moments(part) for part in values.split([1, 0, 60, 39])])
    merged = merge_moments(pieces)
    torch.testing.assert_close(merged, moments(values))
    torch.testing.assert_close(merged[2] / 99, values.var())


def test_no_cancellation_far_from_zero():
    # The sum of squares minus n m^2 would return 0 or noise here: the squares need 18 digits.
    values = 1e9 + torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    pieces = torch.stack([moments(values[:1]), moments(values[1:])])
    torch.testing.assert_close(merge_moments(pieces)[2].item(), 2.0)


def test_nothing_merges_to_nothing():
    assert merge_moments(torch.zeros(3, 3, dtype=torch.float64)).tolist() == [0, 0, 0]
