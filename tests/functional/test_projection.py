import math

import pytest
import torch

from lit_purify.functional import lp_distance, project


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(40, 3, 4, 4, generator=generator)
    scale = torch.logspace(-4, 0, 40).view(-1, 1, 1, 1)
    return clean, clean + scale * torch.randn(clean.shape, generator=generator)


@pytest.mark.parametrize(("p", "eps"), [(math.inf, 0.03), (2, 0.3), (1, 2.0)])
def test_the_result_is_in_the_ball_and_in_the_box(p: float, eps: float) -> None:
    clean, perturbed = batch()
    found = project(perturbed, clean, eps, p)
    assert (lp_distance(found.double(), clean.double(), p) <= eps + 1e-6).all()
    assert ((found >= 0) & (found <= 1)).all()
    inside = lp_distance(perturbed, clean, p) < eps
    inside &= ((perturbed >= 0) & (perturbed <= 1)).flatten(1).all(1)
    assert 0 < inside.sum() < len(clean)
    torch.testing.assert_close(found[inside], perturbed[inside], rtol=0, atol=1e-6)


@pytest.mark.parametrize("p", [1, 2])
def test_a_long_perturbation_keeps_its_direction(p: int) -> None:
    clean = torch.full((1, 3, 2, 2), 0.5, dtype=torch.float64)
    delta = torch.linspace(-0.4, 0.4, 12, dtype=torch.float64).view(1, 3, 2, 2)
    found = project(clean + delta, clean, 0.1, p) - clean
    length = torch.linalg.vector_norm(delta, ord=p)
    torch.testing.assert_close(found, delta * 0.1 / length, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_no_perturbation_and_no_radius(p: float) -> None:
    clean, perturbed = batch()
    assert torch.equal(project(clean, clean, 0.1, p), clean)
    assert torch.equal(project(perturbed, clean, 0.0, p), clean)
