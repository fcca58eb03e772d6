"""Certificates from counts whose law is known: a linear classifier's exact radius is its margin."""

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy.stats import binom, binomtest

from lit_purify.functional import ABSTAINED, certificate, certified_radius

PHI = NormalDist()
SIGMA = 0.5


def counted(answers, n):
    """Counts of two classes, the first of which is answered so often."""
    answers = torch.as_tensor(answers)
    return torch.stack([answers, n - answers], 1)


@pytest.mark.parametrize(("n", "alpha"), [(100, 0.05), (1000, 0.05), (1000, 0.001)])
def test_the_radius_exceeds_the_exact_one_in_at_most_alpha_of_the_cases(n, alpha):
    """A plane at the distance r is answered right with Phi(r / sigma), and falls at r exactly."""
    rng = np.random.default_rng(0)
    cases = 1000
    exact = SIGMA * rng.uniform(0.05, 2.5, cases)
    likely = np.array([PHI.cdf(radius / SIGMA) for radius in exact])
    selection = counted(rng.binomial(20, likely), 20)
    votes = counted(rng.binomial(n, likely), n)
    found = certificate(selection, votes, n, sigma=SIGMA, alpha=alpha)
    right = found.prediction == 0
    # Wrong is a radius that is too large, and any radius of the other class.
    wrong = (right & (found.radius.numpy() > exact)) | (found.prediction == 1)
    assert int(wrong.sum()) <= binom.ppf(0.999, cases, alpha)
    # It is no empty promise: most of the distance is certified, and what is far from the plane is.
    shares = found.radius.where(right, 0).numpy() / exact
    far = exact > SIGMA
    assert np.mean(shares[far]) > (0.7 if n == 100 else 0.85)
    assert not (found.prediction[far] == ABSTAINED).any()


def test_an_answer_by_chance_is_mostly_no_answer():
    """On the plane itself, both classes are as likely: certifying either is an error."""
    n, alpha, cases = 200, 0.05, 1000
    rng = np.random.default_rng(1)
    selection, votes = (counted(rng.binomial(k, 0.5, cases), k) for k in (20, n))
    found = certificate(selection, votes, n, sigma=SIGMA, alpha=alpha)
    certified = int((found.prediction != ABSTAINED).sum())
    assert 0 < certified <= binom.ppf(0.999, cases, alpha)


def test_the_radius_is_that_of_the_bound():
    successes, n, alpha = [51, 80, 99, 100], 100, 0.01
    bounds = [
        binomtest(k, n, alternative="greater").proportion_ci(1 - alpha, method="exact").low
        for k in successes
    ]
    want = [SIGMA * PHI.inv_cdf(low) if low > 0.5 else math.nan for low in bounds]
    found = certified_radius(torch.tensor(successes), n, sigma=SIGMA, alpha=alpha)
    assert found.tolist() == pytest.approx(want, rel=1e-9, nan_ok=True)
    assert math.isnan(want[0])
    assert want[-1] == pytest.approx(SIGMA * PHI.inv_cdf(alpha ** (1 / n)), rel=1e-9)


def test_the_class_is_that_of_the_first_answers_alone():
    selection = torch.tensor([[0, 5, 5], [0, 10, 0], [10, 0, 0]])
    votes = torch.tensor([[0, 98, 2], [98, 2, 0], [98, 0, 0]])
    found = certificate(selection, votes, 100, sigma=SIGMA, alpha=0.001)
    assert found.prediction.tolist() == [1, ABSTAINED, 0]
    assert torch.isnan(found.radius).tolist() == [False, True, False]
    # Answers that were none count against the class.
    assert found.radius[0] == found.radius[2]
