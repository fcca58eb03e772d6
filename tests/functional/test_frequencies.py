"""Low frequencies against SciPy's cosine transform and its solver of linear programs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn
from scipy.optimize import linprog

from lit_purify.functional import low_pass, project_low_frequency, rms

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand(2, 3, 8, 12, generator=GENERATOR, dtype=torch.float64)


@pytest.mark.parametrize("k", [1, 3, 8, 12, 40])
def test_it_is_the_cosine_transform_without_the_upper_part(k: int) -> None:
    spectrum = dctn(IMAGES.numpy(), axes=(2, 3), norm="ortho")
    spectrum[:, :, k:] = 0
    spectrum[:, :, :, k:] = 0
    want = torch.from_numpy(idctn(spectrum, axes=(2, 3), norm="ortho"))
    torch.testing.assert_close(low_pass(IMAGES, k), want, rtol=0, atol=1e-13)
    assert low_pass(IMAGES.float(), k).dtype == torch.float32


def test_all_frequencies_are_the_image_and_its_bounds_alone() -> None:
    bound = torch.full_like(IMAGES, 0.1)
    found = project_low_frequency(IMAGES - 0.5, -bound, bound, 12, slack=0.0)
    assert torch.equal(found, (IMAGES - 0.5).clamp(-0.1, 0.1))


def test_what_is_within_stays_and_what_is_not_comes_within() -> None:
    low = low_pass(IMAGES, 3)
    wide = torch.full_like(low, 2)
    torch.testing.assert_close(project_low_frequency(low, -wide, wide, 3, slack=0.0), low)
    # No room above in a third of the pixels.
    room = 0.05 * (torch.rand(IMAGES.shape, generator=GENERATOR) > 0.3)
    below = torch.full_like(low, -0.05)
    found = project_low_frequency(IMAGES - 0.5, below, room.double(), 3, slack=1e-3)
    assert ((found >= below) & (found <= room)).all()
    assert (rms(found - low_pass(found, 3)) <= 1e-3).all()


def test_without_room_nothing_is_left() -> None:
    none = torch.zeros_like(IMAGES)
    assert torch.equal(project_low_frequency(IMAGES, none, none, 3, slack=0.0), none)


def test_it_is_near_the_nearest() -> None:
    """A linear function of what comes back from afar is at most that of the linear program."""
    n, k = 8, 3
    bound = torch.full((1, 1, n, n), 0.1, dtype=torch.float64)
    slope = torch.randn(1, 1, n, n, generator=GENERATOR, dtype=torch.float64)
    units = torch.eye(n * n, dtype=torch.float64).view(-1, 1, n, n)
    basis = np.linalg.svd(low_pass(units, k).reshape(n * n, -1).numpy())[0][:, : k * k]
    best = linprog(
        -basis.T @ slope.flatten().numpy(),
        A_ub=np.vstack([basis, -basis]),
        b_ub=np.full(2 * n * n, 0.1),
        bounds=(None, None),
    )
    delta = torch.zeros_like(slope)
    step = low_pass(slope, k)
    for _ in range(60):
        delta = project_low_frequency(delta + 0.1 * step, -bound, bound, k, slack=1e-5)
    assert 0.96 < (slope * delta).sum().item() / -best.fun <= 1 + 1e-3
