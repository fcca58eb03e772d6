import pytest
import torch

from lit_purify.functional import correct


def test_correct_is_argmax() -> None:
    logits = torch.eye(4)
    assert correct(logits, torch.arange(4)).all()
    assert not correct(logits, torch.arange(4).roll(1)).any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 1])
def test_an_overflow_has_fooled_the_network(bad: float, place: int) -> None:
    logits = torch.tensor([[2.0, 1.0], [2.0, 1.0]])
    logits[0, place] = bad
    assert correct(logits, torch.tensor([0, 0])).tolist() == [False, True]
    assert correct(logits, torch.tensor([1, 0])).tolist() == [False, True]


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="logits"):
        correct(torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.int64))
