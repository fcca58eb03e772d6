"""First-order radii against classifiers whose distance to the other class is known exactly."""

import math

import pytest
import torch
from oracles import some_images
from torch import Tensor

from lit_purify.functional import (
    Linearised,
    correct,
    margin,
    project,
    radius_along,
    standing_share,
    steepest,
)

NORMS = [math.inf, 2]
SHAPE = (3, 4, 4)


def weights(k: int, seed: int = 0) -> Tensor:
    """Rows of a linear classifier, (k, pixels), float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(k, 48, generator=generator, dtype=torch.float64) / 48


def centred(n: int) -> Tensor:
    """Images far from 0 and 1."""
    return 0.5 + 0.1 * (some_images(n, SHAPE).double() - 0.5)


def affine(rows: Tensor, scale: Tensor | float = 0.3) -> object:
    """Logits of a linear classifier behind f(x) = scale (x - 1/2), (B, k)."""
    return lambda images: (scale * (images - 0.5)).flatten(1) @ rows.T


def linearise(logits: object, labels: Tensor) -> object:
    """The margins of one configuration and their gradients, by autograd."""

    def function(images: Tensor) -> Linearised:
        x = images.clone().requires_grad_()
        margins = margin(logits(x), labels)
        (gradient,) = torch.autograd.grad(margins.sum(), x)
        return Linearised(margins.detach()[None], gradient[None])

    return function


def test_the_margin_is_positive_where_the_class_is_right():
    images, rows = centred(20), weights(5)
    logits, labels = affine(rows)(images), torch.arange(20) % 5
    assert torch.equal(margin(logits, labels) > 0, correct(logits, labels))
    assert 0 < correct(logits, labels).sum() < 20


@pytest.mark.parametrize("p", NORMS)
def test_the_steepest_direction_reaches_the_dual_norm(p):
    gradient = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(1)).double()
    u = steepest(gradient, p)
    dual = 1 if p == math.inf else 2
    slope = (gradient * u).flatten(1).sum(1)
    torch.testing.assert_close(slope, torch.linalg.vector_norm(gradient.flatten(1), dual, dim=1))
    torch.testing.assert_close(
        torch.linalg.vector_norm(u.flatten(1), p, dim=1), torch.ones(4).double()
    )


def test_other_norms_are_refused():
    with pytest.raises(ValueError, match="p must be"):
        steepest(torch.ones(1, 2), 1)


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("gradients", [1, 2, 5])
def test_it_is_exact_behind_an_affine_purifier(p, gradients):
    """Two classes: the perturbation of length r just changes the class, and none is shorter."""
    images, rows = centred(6), weights(2)
    scale = 0.3 + some_images(1, SHAPE, seed=2).double()
    logits = affine(rows, scale)
    labels = logits(images).argmax(1)
    labels[0] = 1 - labels[0]
    function = linearise(logits, labels)
    start = function(images)
    u = steepest(start.gradient[0], p)
    radii = radius_along(start.margin[0], start.gradient[0], u)
    assert radii[0] < 0 < radii[1:].min()
    assert radii.max() < 0.2  # short of the ends of [0, 1]
    for factor, right in ((0.999, True), (1.001, False)):
        eps = factor * radii[1:]
        moved = project(images[1:] - eps.view(-1, 1, 1, 1) * u[1:], images[1:], 1, math.inf)
        assert torch.equal(correct(logits(moved), labels[1:]), torch.full((5,), right))
    for eps in (*(0.999 * radii[1:]), *(1.001 * radii[1:])):
        found = standing_share(function, images, start, float(eps), gradients=gradients, p=p)
        assert torch.equal(found, (radii > eps).double())


def test_a_walk_sees_the_curvature():
    """m = 1 - 10 x - 100 x**2 is 0 at 0.0618; its tangent at 0 at 0.1."""

    def curved(x: Tensor) -> Linearised:
        x = x - 0.5
        return Linearised((1 - 10 * x - 100 * x**2).view(1, -1), (-10 - 200 * x)[None])

    images = torch.full((1, 1), 0.5, dtype=torch.float64)
    start = curved(images)

    def radius(gradients: int) -> float:
        """The eps that it stands up to, by bisection."""
        low, high = 0.0, 0.2
        for _ in range(40):
            eps = (low + high) / 2
            stands = standing_share(curved, images, start, eps, gradients=gradients).item()
            low, high = (eps, high) if stands else (low, eps)
        return low

    found = [radius(n) for n in (1, 2, 8)]
    assert found[0] == pytest.approx(0.1)
    assert found[1] == pytest.approx(0.0667, abs=1e-4)  # the root of 1 - 10 x - 75 x**2
    assert found[2] == pytest.approx(0.0618, abs=1e-3)


def test_what_has_no_gradient_has_no_radius():
    nothing = torch.zeros(3, 2)
    radii = radius_along(torch.tensor([1.0, -1.0, 0.0]), nothing, steepest(nothing))
    assert radii[0] == math.inf
    assert radii[1] == -math.inf
    assert radii[2].isnan()


def test_a_configuration_meets_the_direction_of_the_others():
    """Three that agree fall to the mean; one whose gradient points elsewhere does not."""
    gradient = torch.tensor([[1.0, 0.1], [1.0, 0.1], [1.0, 0.1], [-1.0, -0.1]]).double()
    start = Linearised(torch.full((4, 1), 0.2).double(), gradient[:, None])
    images = torch.full((1, 2), 0.5, dtype=torch.float64)
    found = standing_share(lambda _: start, images, start, 0.2, gradients=1)
    assert found.item() == 0.25
    alone = Linearised(start.margin[3:], start.gradient[3:])
    assert standing_share(lambda _: alone, images, alone, 0.2, gradients=1).item() == 0
