"""Distances, the ball and the rate: closed forms."""

import math
import weakref

import pytest
import torch

from lit_purify.functional import (
    compression_rate,
    init_max_end,
    lp_distance,
    project,
    trajectory_distances,
)


def test_distances_of_a_constant_shift():
    a = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shift = torch.tensor([0.1, -0.2, 0.0, 1.0], dtype=torch.float64)
    b = a + shift.view(-1, 1, 1, 1)
    torch.testing.assert_close(lp_distance(a, b, math.inf), shift.abs())
    torch.testing.assert_close(lp_distance(a, b, 2), shift.abs() * math.sqrt(3 * 8 * 8))
    torch.testing.assert_close(lp_distance(a, b, 1), shift.abs() * 3 * 8 * 8)


def test_other_norms_and_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):  # nothing is broadcast
        lp_distance(torch.zeros(2, 3, 4, 4), torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="inf"):
        lp_distance(torch.zeros(1, 3), torch.zeros(1, 3), 3)


@pytest.mark.parametrize("scale", [0.0, 0.2, 1.0, 3.0])
def test_a_scaling_purifier_has_its_scale_as_rate(scale):
    generator = torch.Generator().manual_seed(1)
    clean = torch.rand(3, 3, 8, 8, generator=generator, dtype=torch.float64)
    perturbed = clean + 0.03 * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    rate = compression_rate(scale * perturbed - 0.5, scale * clean - 0.5, perturbed, clean)
    torch.testing.assert_close(rate, torch.full((3,), scale, dtype=torch.float64))


def test_a_zero_perturbation_has_no_rate():
    clean = torch.zeros(2, 3, 4, 4)
    perturbed = clean.clone()
    perturbed[1] += 0.1
    rate = compression_rate(perturbed + 1, clean, perturbed, clean)
    assert rate[0].isnan()
    assert rate[1].isfinite()


def test_the_rate_keeps_the_graph():
    clean = torch.zeros(1, 3, 4, 4)
    perturbed = (clean + 0.1).requires_grad_()
    compression_rate(perturbed**2, clean, perturbed, clean).sum().backward()
    # Rate of squaring a constant shift d is |d|; its derivatives over all pixels sum to 1.
    torch.testing.assert_close(perturbed.grad.sum(), torch.tensor(1.0))


def test_a_trajectory_has_the_distance_of_every_state():
    clean = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    shifts = [0.1, -3.0, 0.5]
    found = trajectory_distances((clean + shift for shift in shifts), clean)
    sizes = torch.tensor(shifts, dtype=torch.float64).abs()
    expected = torch.stack([sizes * math.sqrt(3 * 8 * 8), sizes]).expand(2, 2, 3)
    torch.testing.assert_close(found, expected)


def test_states_are_taken_one_by_one():
    alive: list[weakref.ref] = []

    def states():
        for _ in range(5):
            state = torch.zeros(1, 3, 4, 4)
            alive.append(weakref.ref(state))
            yield state
            del state
            # The one that is looked at, at most: never all of them.
            assert sum(ref() is not None for ref in alive) <= 1

    assert trajectory_distances(states(), torch.zeros(1, 3, 4, 4)).shape == (1, 2, 5)
    assert len(alive) == 5


def test_a_trajectory_without_states_or_of_another_size_is_refused():
    clean = torch.zeros(1, 3, 4, 4)
    with pytest.raises(ValueError, match="states"):
        trajectory_distances([], clean)
    with pytest.raises(ValueError, match="one shape"):
        trajectory_distances([torch.zeros(1, 3, 8, 8)], clean)


def test_init_max_end():
    distances = torch.tensor([[1.0, 9.0, 3.6], [5.0, 2.0, 0.0]])
    found = {name: values.tolist() for name, values in init_max_end(distances).items()}
    assert found == {"init": [1, 5], "max": [9, 5], "end": [pytest.approx(3.6), 0]}


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(40, 3, 4, 4, generator=generator)
    scale = torch.logspace(-4, 0, 40).view(-1, 1, 1, 1)
    return clean, clean + scale * torch.randn(clean.shape, generator=generator)


@pytest.mark.parametrize(("p", "eps"), [(math.inf, 0.03), (2, 0.3), (1, 2.0)])
def test_the_result_is_in_the_ball_and_in_the_box(p, eps):
    clean, perturbed = batch()
    found = project(perturbed, clean, eps, p)
    assert (lp_distance(found.double(), clean.double(), p) <= eps + 1e-6).all()
    assert ((found >= 0) & (found <= 1)).all()
    inside = lp_distance(perturbed, clean, p) < eps
    inside &= ((perturbed >= 0) & (perturbed <= 1)).flatten(1).all(1)
    assert 0 < inside.sum() < len(clean)
    torch.testing.assert_close(found[inside], perturbed[inside], rtol=0, atol=1e-6)


@pytest.mark.parametrize("p", [1, 2])
def test_a_long_perturbation_keeps_its_direction(p):
    clean = torch.full((1, 3, 2, 2), 0.5, dtype=torch.float64)
    delta = torch.linspace(-0.4, 0.4, 12, dtype=torch.float64).view(1, 3, 2, 2)
    found = project(clean + delta, clean, 0.1, p) - clean
    length = torch.linalg.vector_norm(delta, ord=p)
    torch.testing.assert_close(found, delta * 0.1 / length, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_no_perturbation_and_no_radius(p):
    clean, perturbed = batch()
    assert torch.equal(project(clean, clean, 0.1, p), clean)
    assert torch.equal(project(perturbed, clean, 0.0, p), clean)
