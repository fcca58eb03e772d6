import pytest
import torch

from lit_purify.functional import correct, majority


def test_correct_is_argmax():
    logits = torch.eye(4)
    assert correct(logits, torch.arange(4)).all()
    assert not correct(logits, torch.arange(4).roll(1)).any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 1])
def test_an_overflow_has_fooled_the_network(bad, place):
    logits = torch.tensor([[2.0, 1.0], [2.0, 1.0]])
    logits[0, place] = bad
    assert correct(logits, torch.tensor([0, 0])).tolist() == [False, True]
    assert correct(logits, torch.tensor([1, 0])).tolist() == [False, True]


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="logits"):
        correct(torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.int64))


def votes(*classes: int, k: int = 4, sure: float = 2.0) -> torch.Tensor:
    """Logits (N, 1, k) of N draws that each name a class."""
    logits = torch.zeros(len(classes), 1, k)
    for draw, winner in enumerate(classes):
        logits[draw, 0, winner] = sure
    return logits


def test_the_majority_wins_however_sure_the_others_are():
    assert majority(votes(1, 1, 3)).item() == 1
    assert majority(torch.cat([votes(1, 1, sure=0.01), votes(3, sure=50.0)])).item() == 1
    assert majority(torch.cat([votes(*[2] * 7, sure=0.01), votes(*[0] * 6, sure=50.0)])).item() == 2


def test_a_tie_goes_to_the_likelier_class():
    assert majority(torch.cat([votes(1, sure=1.0), votes(3, sure=5.0)])).item() == 3
    assert majority(torch.cat([votes(1, sure=5.0), votes(3, sure=1.0)])).item() == 1


def test_an_overflow_has_no_vote():
    logits = votes(2, 2, 1)
    logits[:2, 0, 0] = torch.tensor([torch.nan, torch.inf])
    assert majority(logits).item() == 1
    logits[2, 0, 0] = -torch.inf
    assert majority(logits).item() == -1


def test_one_draw_is_its_own_majority():
    logits = torch.randn(1, 20, 10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(majority(logits), logits[0].argmax(1))
