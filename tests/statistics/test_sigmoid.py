"""The sigmoid law against golden numbers, scipy's curve_fit and simulation."""

import math

import numpy as np
import pytest
from scipy.optimize import curve_fit
from scipy.stats import t as student

from lit_purify.statistics import fit_sigmoid
from lit_purify.types import InputError

# Typed from Tables 6 and 7, percent: DDPM t* = 10 ... 300, Reverse 10 ... 200, DDIM 100.
PAPER = [
    *[(0.552, 0.1), (0.420, 1.0), (0.299, 8.6), (0.231, 23.7), (0.201, 35.3), (0.187, 39.5)],
    *[(0.185, 40.2), (0.461, 0.6), (0.355, 3.5), (0.248, 18.5), (0.195, 34.9), (0.177, 43.0)],
    *[(0.174, 46.5), (0.281, 10.9)],
]
RATES = np.linspace(0.05, 0.3, 14)
K, M = 17.0, 0.16


def curve(x, k, m, a=1.0):
    return a / (1 + np.exp(k * (np.asarray(x) - m)))


def paper():
    rates, percent = zip(*PAPER, strict=True)
    return np.array(rates), np.array(percent) / 100


def noisy(seed, sd=0.02, a=1.0):
    rng = np.random.default_rng(seed)
    return np.clip(curve(RATES, K, M, a) + sd * rng.standard_normal(len(RATES)), 0, 1)


class TestGolden:
    def test_ceiling_one(self):
        fit = fit_sigmoid(*paper())
        assert fit.steepness == pytest.approx(17.453, abs=5e-4)
        assert fit.middle == pytest.approx(0.16292, abs=5e-6)
        assert fit.at_zero == pytest.approx(0.9450, abs=5e-5)
        assert fit.ceiling == 1
        assert fit.standard_errors[2] == 0
        assert (fit.points, fit.parameters) == (14, 2)

    def test_free_ceiling(self):
        fit = fit_sigmoid(*paper(), free_ceiling=True)
        assert fit.ceiling == pytest.approx(1.0269, abs=1e-4)
        assert fit.steepness == pytest.approx(17.282, abs=5e-4)
        assert fit.middle == pytest.approx(0.16014, abs=5e-6)
        assert fit.r_squared == pytest.approx(0.9983, abs=5e-5)


@pytest.mark.parametrize("free", [False, True])
class TestClosedForm:
    def test_exact_points_give_their_curve(self, free):
        a = 0.8 if free else 1.0
        fit = fit_sigmoid(RATES, curve(RATES, K, M, a), free_ceiling=free)
        found = (fit.steepness, fit.middle, fit.ceiling)
        assert found == pytest.approx((K, M, a), rel=1e-9)
        assert fit.standard_errors == pytest.approx((0, 0, 0), abs=1e-8)
        assert fit.r_squared == pytest.approx(1, abs=1e-12)
        assert fit.at_zero == pytest.approx(float(curve(0, K, M, a)), rel=1e-9)
        assert float(fit(fit.middle)) == pytest.approx(a / 2, rel=1e-9)
        low, high = fit.band(RATES)
        assert np.allclose(low, fit(RATES), atol=1e-8)
        assert np.allclose(high, fit(RATES), atol=1e-8)

    def test_the_order_of_the_points_does_not_matter(self, free):
        y, order = noisy(0), np.random.default_rng(1).permutation(len(RATES))
        one = fit_sigmoid(RATES, y, free_ceiling=free)
        two = fit_sigmoid(RATES[order], y[order], free_ceiling=free)
        assert two.steepness == pytest.approx(one.steepness, rel=1e-9)
        assert two.covariance == pytest.approx(one.covariance, rel=1e-6)

    @pytest.mark.parametrize("weighted", [False, True])
    def test_it_is_what_curve_fit_finds(self, free, weighted):
        y = noisy(2, a=0.9)
        errors = np.linspace(0.01, 0.05, len(RATES)) if weighted else None
        start = [10, 0.2, 1.0] if free else [10, 0.2]
        expected, covariance = curve_fit(
            curve, RATES, y, start, sigma=errors, ftol=1e-14, xtol=1e-14, gtol=1e-14
        )
        fit = fit_sigmoid(RATES, y, errors=errors, free_ceiling=free)
        n = len(start)
        assert [fit.steepness, fit.middle, fit.ceiling][:n] == pytest.approx(expected, rel=1e-6)
        # curve_fit differentiates numerically.
        assert fit.covariance[:n, :n] == pytest.approx(covariance, rel=1e-4)
        weights = np.ones(len(y)) if errors is None else errors**-2.0
        centred = y - np.average(y, weights=weights)
        explained = 1 - weights @ (fit(RATES) - y) ** 2 / (weights @ centred**2)
        assert fit.r_squared == pytest.approx(explained, abs=1e-12)

    def test_the_band_is_the_delta_method(self, free):
        fit = fit_sigmoid(RATES, noisy(3), free_ceiling=free)
        n = 2 + free
        parameters = np.array([fit.steepness, fit.middle, fit.ceiling])
        for alpha in (0.0, 0.1, 0.16, 0.4):
            gradient = []
            for i in range(n):
                step = np.zeros(3)
                step[i] = 1e-6 * parameters[i]
                up, down = curve(alpha, *(parameters + step)), curve(alpha, *(parameters - step))
                gradient.append((up - down) / (2 * step[i]))
            sd = math.sqrt(np.array(gradient) @ fit.covariance[:n, :n] @ np.array(gradient))
            for confidence in (0.95, 0.5):
                low, high = fit.band(alpha, confidence)
                quantile = student.ppf((1 + confidence) / 2, len(RATES) - n)
                assert float(high - low) / 2 == pytest.approx(quantile * sd, rel=1e-6)
                assert float(high + low) / 2 == pytest.approx(float(fit(alpha)), rel=1e-12)


class TestWeights:
    def test_only_their_ratios_count(self):
        y, errors = noisy(4), np.linspace(0.01, 0.03, len(RATES))
        one = fit_sigmoid(RATES, y, errors=errors)
        two = fit_sigmoid(RATES, y, errors=1000 * errors)
        assert two.steepness == pytest.approx(one.steepness, rel=1e-9)
        assert two.covariance == pytest.approx(one.covariance, rel=1e-6)
        alike = fit_sigmoid(RATES, y, errors=[0.1] * len(RATES))
        assert alike.middle == pytest.approx(fit_sigmoid(RATES, y).middle, rel=1e-9)


class TestBand:
    @pytest.mark.parametrize("free", [False, True])
    def test_it_covers_the_truth(self, free):
        alphas = np.array([0.0, 0.08, 0.16, 0.24, 0.3])
        truth, fits = curve(alphas, K, M), 400
        inside = np.zeros(len(alphas))
        for seed in range(fits):
            low, high = fit_sigmoid(RATES, noisy(seed), free_ceiling=free).band(alphas)
            inside += (low <= truth) & (truth <= high)
        assert (inside / fits >= 0.90).all(), inside / fits
        assert (inside / fits <= 0.99).all(), inside / fits

    def test_confidence_is_checked(self):
        with pytest.raises(ValueError, match="confidence"):
            fit_sigmoid(RATES, noisy(0)).band(0.1, 1.0)


SOME, FALLING, FREE = [0.1, 0.2, 0.3, 0.4], [0.9, 0.5, 0.1, 0], {"free_ceiling": True}
NAN, INF = math.nan, math.inf
WRONG = {
    "too few points": (SOME[:2], FALLING[:2], {}, "3 points"),
    "too few for A": (SOME[:3], FALLING[:3], FREE, "4 points"),
    "percent": (SOME, [90, 50, 20, 1], {}, "percentages"),
    "negative accuracy": (SOME, [0.9, 0.5, 0.1, -0.01], {}, "shares"),
    "nan accuracy": (SOME, [0.9, NAN, 0.1, 0.0], {}, "shares"),
    "nan rate": ([0.1, NAN, 0.3, 0.4], FALLING, {}, "finite"),
    "infinite rate": ([0.1, INF, 0.3, 0.4], FALLING, {}, "finite"),
    "negative rate": ([-0.1, 0.2, 0.3, 0.4], FALLING, {}, "at least 0"),
    "another length": (SOME, FALLING[:3], {}, "one length"),
    "errors of another length": (SOME, FALLING, {"errors": [1]}, "one length"),
    "an error of 0": (SOME, FALLING, {"errors": [0, 1, 1, 1]}, "above 0"),
    "one rate": ([0.2] * 4, FALLING, {}, "2 or more different rates"),
    "two rates and A": ([0.2, 0.2, 0.3, 0.3], FALLING, FREE, "3 or more different rates"),
    "one accuracy": (SOME, [0.0] * 4, {}, "different accuracies"),
    "a step": (SOME, [1, 1, 0, 0], {}, "determine"),
    "one point above 0": (SOME, [0.02, 0, 0, 0], {}, "determine"),
    "no trend": (SOME, [0.5, 0.6, 0.6, 0.5], {}, "do not change"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_determines_no_curve_is_refused(case):
    rates, accuracies, options, message = WRONG[case]
    with pytest.raises(InputError, match=message):
        fit_sigmoid(rates, accuracies, **options)


def test_a_tail_does_not_know_the_ceiling():
    # Where the curve is an exponential, A and m do the same: any A fits, and its error says so.
    rates = np.linspace(0.4, 0.6, 8)
    noise = 1 + 0.02 * np.random.default_rng(0).standard_normal(len(rates))
    fit = fit_sigmoid(rates, curve(rates, K, M) * noise, free_ceiling=True)
    assert fit.standard_errors[2] > fit.ceiling
    low, high = fit.band(0.0)
    assert low < 0
    assert high > 1


def test_accuracy_that_rises_has_a_negative_steepness():
    fit = fit_sigmoid(RATES, curve(RATES, -K, M))
    assert fit.steepness == pytest.approx(-K, rel=1e-8)
    assert fit.middle == pytest.approx(M, rel=1e-8)
