"""Losses of attacks against their formulas, written out number by number."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from oracles import some_images

from lit_purify.attacks import PGD
from lit_purify.attacks.losses import Goal, LossName
from lit_purify.defence import Defence
from lit_purify.types import InputError

LOGITS = 6 * torch.randn(40, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.arange(40) % 5
TARGETS = (LABELS + 1 + torch.arange(40) % 4) % 5


def others(z: list[float], y: int) -> float:
    return max(value for k, value in enumerate(z) if k != y)


def log_share(z: list[float], y: int) -> float:
    return z[y] - math.log(sum(map(math.exp, z)))


def dlr(z: list[float], y: int) -> float:
    ranked = sorted(z, reverse=True)
    return -(z[y] - others(z, y)) / (ranked[0] - ranked[2])


def targeted_dlr(z: list[float], y: int, t: int) -> float:
    ranked = sorted(z, reverse=True)
    return -(z[y] - z[t]) / (ranked[0] - (ranked[2] + ranked[3]) / 2)


FORMULAS: dict[LossName, tuple[Callable[..., float], Callable[..., float]]] = {
    "cross_entropy": (lambda z, y: -log_share(z, y), lambda z, y, t: log_share(z, t)),
    "margin": (lambda z, y: others(z, y) - z[y], lambda z, y, t: z[t] - z[y]),
    "dlr": (dlr, targeted_dlr),
}
LOSSES = pytest.mark.parametrize("name", FORMULAS)


@LOSSES
def test_they_equal_their_formulas(name: LossName) -> None:
    untargeted, targeted = FORMULAS[name]
    rows = list(zip(LOGITS.tolist(), LABELS.tolist(), TARGETS.tolist(), strict=True))
    want = LOGITS.new_tensor([untargeted(z, y) for z, y, _ in rows])
    torch.testing.assert_close(Goal(name)(LOGITS, LABELS), want, rtol=1e-9, atol=1e-9)
    want = LOGITS.new_tensor([targeted(*row) for row in rows])
    goal = Goal(name, TARGETS)
    torch.testing.assert_close(goal(LOGITS, LABELS), want, rtol=1e-9, atol=1e-9)
    # Copies of a batch, and some of its rows.
    twice = goal(LOGITS.repeat(2, 1), LABELS.repeat(2))
    torch.testing.assert_close(twice, want.repeat(2), rtol=1e-9, atol=1e-9)
    some = torch.tensor([7, 2])
    found = goal.of(some)(LOGITS[some], LABELS[some])
    torch.testing.assert_close(found, want[some], rtol=1e-9, atol=1e-9)


def test_dlr_does_not_see_scale_and_offset() -> None:
    for goal in (Goal("dlr"), Goal("dlr", TARGETS)):
        torch.testing.assert_close(goal(30 * LOGITS - 7, LABELS), goal(LOGITS, LABELS))


def test_equal_logits_are_no_division_by_zero() -> None:
    logits = torch.zeros(3, 5, requires_grad=True)
    loss = Goal("dlr")(logits, torch.arange(3))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.tolist() == [0, 0, 0]
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["margin", "dlr"])
def test_differences_of_bfloat16_are_taken_in_float32(name: LossName) -> None:
    logits = LOGITS.bfloat16()
    assert torch.equal(Goal(name)(logits, LABELS), Goal(name)(logits.float(), LABELS))


@pytest.mark.parametrize(
    ("classes", "options", "keyword"),
    [
        (2, {"loss": "dlr"}, "margin"),
        (3, {"loss": "dlr", "targets": "all", "keep": "best"}, "margin"),
        (3, {"targets": 3, "keep": "best"}, "at most 2"),
    ],
)
def test_too_few_classes_are_refused(classes: int, options: dict, keyword: str) -> None:
    defence = Defence(lambda x: x.flatten(1)[:, :classes])
    batch = some_images(2).float(), torch.zeros(2, dtype=torch.int64), torch.arange(2)
    with pytest.raises(InputError, match=keyword):
        PGD(steps=1, **options)(defence, *batch)
